"""Store the features of pictures or videos: grids, global vectors, detected regions, frames."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, extract, say what was done."""
    args = _parser().parse_args(argv)

    from xmodaler.preprocessing.extraction import run_extraction

    print(run_extraction(args))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", help="folder of pictures")
    source.add_argument("--videos", help="folder of videos")
    parser.add_argument("--annotations", nargs="+", help="take files and ids from COCO JSON")
    parser.add_argument("--numbers", action="store_true", help="ids are the numbers in the names")
    parser.add_argument("--out", required=True, help="a folder, or a packed file ending with .xmf")
    parser.add_argument("--dtype", choices=("float32", "float16"), help="default: float32")
    parser.add_argument("--regions", action="store_true", help="detect regions (Faster R-CNN)")
    parser.add_argument("--model", help="timm backbone (resnet101) or torchvision detector")
    parser.add_argument("--weights", default="", help="local weights file of the model")
    parser.add_argument("--pretrained", action="store_true", help="download published weights")
    parser.add_argument("--kind", choices=("grid", "global", "both"), default="grid")
    parser.add_argument("--size", type=int, default=224, help="side of the squeezed picture")
    parser.add_argument("--cells", type=int, default=0, help="average the grid to so many a side")
    parser.add_argument("--min-regions", type=int, default=10)
    parser.add_argument("--max-regions", type=int, default=100)
    parser.add_argument("--min-score", type=float, default=0.2)
    parser.add_argument("--frames", type=int, default=50, help="greatest number of frames")
    parser.add_argument("--sampling", choices=("uniform", "segment", "fps"), default="uniform")
    parser.add_argument("--fps", type=float, default=1.0, help="with --sampling fps")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4, help="threads that read files")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max-bad-fraction", type=float, default=0.01)
    return parser


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
