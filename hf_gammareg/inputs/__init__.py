"""What to feed a model, from what it says of itself.

Read `batch` (the form of it), `vision` (timm and torchvision), `facts` and `arguments` (transformers: what a
configuration says, and the arguments made of it), `derive` (from any model to its inputs), `libraries`, `folders` and
`sources` (models by name).
"""
