"""Which files of a folder are taken for pictures or videos.

A file that is named itself may be called anything: what it is shows in its content.
"""

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
    | {".pgm", ".avif"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"}
    | {".3gp", ".ogv", ".gif", ".apng"}
)
