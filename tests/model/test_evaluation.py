"""Evaluation where its packages are missing."""

import subprocess
import sys


def test_missing_packages_name_the_extra():
    code = (
        "import sys; sys.modules['isic_challenge_scoring'] = None\n"
        "import derma_semantics, derma_semantics.commands.cli\n"
        "print([m for m in ('scipy', 'pandas', 'matplotlib', 'sklearn') if m in sys.modules])\n"
        "import derma_semantics.evaluation"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]"
    assert "evaluation needs isic_challenge_scoring: pip install 'derma-semantics[evaluate]'" in done.stderr
