"""Small images of every kind that is taken, and the same with seeded damage."""

import io
import random

import numpy as np
from PIL import Image, ImageOps

EXIF_ORIENTATION = 0x0112


def encode(image, kind, **options):
    """The bytes of the image's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def draw_samples():
    """Sound and refused files of 23 x 19 pixels by a name that says their kind and mode."""
    pixels = np.random.default_rng(0).integers(0, 255, (19, 23), np.uint8)
    pixels[5:12, 6:15] = 200
    grey = Image.fromarray(pixels)
    colour = Image.merge("RGB", [grey, ImageOps.mirror(grey), ImageOps.flip(grey)])
    clear, grey_clear = colour.copy(), grey.copy()
    clear.putalpha(ImageOps.invert(grey))
    grey_clear.putalpha(ImageOps.invert(grey))
    deep, real = Image.fromarray(pixels.astype(np.uint16) * 257), Image.fromarray(pixels.astype(np.float32))
    palette, bits, inks = colour.quantize(16), grey.convert("1"), colour.convert("CMYK")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    modes = {"L": grey, "RGB": colour, "RGBA": clear, "LA": grey_clear, "I16": deep, "P": palette, "1": bits}
    samples = {f"PNG {mode}": encode(image, "PNG") for mode, image in modes.items()}
    samples |= {f"TIFF {mode}": encode(image, "TIFF") for mode, image in {**modes, "CMYK": inks, "F": real}.items()}
    samples |= {f"BMP {mode}": encode(modes[mode], "BMP") for mode in ("L", "RGB", "RGBA", "P", "1")}
    for mode, image in {"L": grey, "RGB": colour, "CMYK": inks}.items():
        samples[f"JPEG {mode}"] = encode(image, "JPEG")
        samples[f"JPEG {mode} progressive"] = encode(image, "JPEG", progressive=True)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        samples[f"TIFF {name}"] = encode(colour, "TIFF", compression=name)
    samples["TIFF group4"] = encode(bits, "TIFF", compression="group4")
    samples["TIFF big"] = encode(grey, "TIFF", big_tiff=True)
    for mode in ("RGB", "RGBA"):
        samples[f"WEBP {mode}"] = encode(modes[mode], "WEBP")
        samples[f"WEBP {mode} lossless"] = encode(modes[mode], "WEBP", lossless=True)
    samples |= {f"{kind} EXIF": encode(colour, kind, exif=exif) for kind in ("PNG", "JPEG", "TIFF", "WEBP")}
    samples["PNG transparency"] = encode(palette, "PNG", transparency=3)
    samples["MPO"] = encode(colour, "MPO", save_all=True, append_images=[colour])
    for kind in ("PNG", "TIFF", "WEBP"):
        samples[f"{kind} of two"] = encode(grey, kind, save_all=True, append_images=[ImageOps.flip(grey)])
    return samples


def damage(content, chance: random.Random, others):
    """The content with some bits flipped, bytes put in or taken out, numbers replaced, or its end cut off."""
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        # Headers are short, and most is in them.
        place = chance.randrange(min(len(damaged), 160) if chance.random() < 0.6 else len(damaged))
        match chance.randrange(7):
            case 0:
                damaged[place] ^= 1 << chance.randrange(8)
            case 1:
                damaged[place] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
            case 2:
                del damaged[place + 1 :]
            case 3:
                damaged[place:place] = chance.randbytes(chance.randrange(1, 20))
            case 4:
                del damaged[place + 1 : place + chance.randrange(2, 30)]
            case 5:
                numbers = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1"]
                damaged[place : place + 4] = chance.choice(numbers)
            case 6:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                damaged[place : place + 40] = other[start : start + 40]
    return bytes(damaged)
