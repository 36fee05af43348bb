"""Image formats that can be read: those of Pillow itself, and HEIC with the extra `heif`."""

from functools import cache

from PIL import Image

FORMATS = (
    *("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "TGA", "JPEG2000"),
    *("BLP", "DDS", "DIB", "ICNS", "ICO", "IM", "MSP", "PCX", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM"),
)
"""Pillow's names (JPEG includes MPO); EPS and PDF, which it can read as well, would start other programs."""
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
AVIF_SUFFIXES = (".avif", ".avifs")
BRANDS = {
    **dict.fromkeys((b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftyphevc", b"ftyphevx"), "HEIF"),
    **dict.fromkeys((b"ftypmif1", b"ftypmsf1"), "HEIF"),
    **dict.fromkeys((b"ftypavif", b"ftypavis"), "AVIF"),
}
"""Bytes 4 to 12 of a file that needs a decoder which is not everywhere."""
HEIF_ADVICE = "install `pip install -e '.[heif]'`, or export it as JPEG or PNG"


@cache
def readable_formats() -> tuple[str, ...]:
    """List the formats that this installation decodes.

    Returns:
        Pillow's names.

    Example:
        >>> from zero123s.images.formats import readable_formats
        >>> "PNG" in readable_formats()
        True
    """
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        import pillow_heif
    except ImportError:
        return tuple(known)
    pillow_heif.register_heif_opener()
    if "AVIF" not in Image.OPEN and hasattr(pillow_heif, "register_avif_opener"):
        pillow_heif.register_avif_opener()  # pyright: ignore[reportAttributeAccessIssue]
        known.append("AVIF")
    return (*known, "HEIF")


@cache
def readable_suffixes() -> tuple[str, ...]:
    """List the file name suffixes of `readable_formats`.

    Returns:
        Suffixes in lower case, with the dot.

    Example:
        >>> from zero123s.images.formats import readable_suffixes
        >>> ".jpg" in readable_suffixes()
        True
    """
    formats = readable_formats()
    return tuple(sorted(s for s, name in Image.registered_extensions().items() if name in (*formats, "MPO")))
