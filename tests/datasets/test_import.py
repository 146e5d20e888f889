"""What importing the room costs."""

import subprocess
import sys


def test_import_is_light():
    code = (
        "import sys, xmodaler.datasets\n"
        "heavy = {'torchvision', 'timm', 'transformers', 'matplotlib', 'PIL', 'pandas', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
