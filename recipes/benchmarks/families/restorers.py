"""Networks of spandrel, which restore and enlarge images: each as its checkpoints have it by default."""

from __future__ import annotations

from typing import Any

from families.recipe import Recipes, images, made

NETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ATD": ("ATD", 64, {}),
    "CRAFT": ("CRAFT", 64, {}),
    "Compact": ("Compact", 64, {}),
    "DAT": ("DAT", 64, {}),
    "DCTLSA": ("DCTLSA", 64, {}),
    "DITN": ("DITN", 64, {}),
    "DRCT": ("DRCT", 64, {"upsampler": "pixelshuffle"}),
    "DRUNet": ("DRUNet", 64, {"in_nc": 3, "out_nc": 3}),
    "DnCNN": ("DnCNN", 64, {"in_nc": 3, "out_nc": 3, "act_mode": "BR"}),
    "ESRGAN": ("ESRGAN", 64, {}),
    "FBCNN": ("FBCNN", 64, {}),
    "FDAT": ("FDAT", 64, {}),
    "FFTformer": ("FFTformer", 64, {}),
    "GFPGAN": ("GFPGAN", 512, {}),
    "GRL": ("GRL", 64, {}),
    "HAT": ("HAT", 64, {"window_size": 8}),
    "HVICIDNet": ("HVICIDNet", 64, {}),
    "KBNet_l": ("KBNet_l", 64, {}),
    "KBNet_s": ("KBNet_s", 64, {}),
    "MMRealSR": ("MMRealSR", 64, {"num_in_ch": 3, "num_out_ch": 3}),
    "MixDehazeNet": ("MixDehazeNet", 64, {}),
    "MoESR": ("MoESR", 64, {}),
    "MoSR": ("MoSR", 64, {}),
    "NAFNet": ("NAFNet", 64, {"enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}),
    "OmniSR": ("OmniSR", 64, {}),
    "PLKSR": ("PLKSR", 64, {}),
    "RealPLKSR": ("RealPLKSR", 64, {}),
    "RCAN": ("RCAN", 64, {}),
    "RGT": ("RGT", 64, {}),
    "RealCUGAN": ("UpCunet2x", 64, {}),
    "RestoreFormer": ("RestoreFormer", 512, {}),
    "RetinexFormer": ("RetinexFormer", 64, {}),
    "SAFMN": ("SAFMN", 64, {"dim": 32}),
    "SAFMNBCIE": ("SAFMNBCIE", 64, {"dim": 32}),
    "SCUNet": ("SCUNet", 64, {}),
    "SPAN": ("SPAN", 64, {"num_in_ch": 3, "num_out_ch": 3}),
    "SeemoRe": ("SeemoRe", 64, {}),
    "SwiftSRGAN": ("SwiftSRGAN", 64, {}),
    "Swin2SR": ("Swin2SR", 64, {"window_size": 8}),
    "SwinIR": ("SwinIR", 64, {"window_size": 8}),
    "Uformer": ("Uformer", 128, {}),
}
"""Networks by name, each with its class, the side of the image, and what its defaults leave open."""
FOLDERS = {"KBNet_l": "KBNet", "KBNet_s": "KBNet", "RealPLKSR": "PLKSR"}


def spandrel() -> Recipes:
    """One of each architecture."""
    import spandrel  # noqa: F401

    return {
        name: made(f"spandrel.architectures.{FOLDERS.get(name, name)}:{kind}", images(size), **options)
        for name, (kind, size, options) in NETS.items()
    }
