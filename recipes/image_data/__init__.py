"""Image classification data for the recipes: from the Hub, from a folder, or scikit-learn's handwritten digits.

In import order: `sources` (where the splits come from), `columns` (which column is what), `load` (the options, and
both together), `transforms` (images to batches of pixels).
"""

from image_data.load import DataArguments, ImageData, load_image_data
from image_data.transforms import PixelDataset, choose_augmentation

__all__ = ["DataArguments", "ImageData", "PixelDataset", "choose_augmentation", "load_image_data"]
