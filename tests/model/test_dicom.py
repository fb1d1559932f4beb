"""DICOM support where its packages are missing or not yet needed."""

import subprocess
import sys


def test_without_the_extra_the_error_names_it():
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from derma_semantics.domain import errors; from derma_semantics.imaging import images\n"
        "try: images.encoded(bytes(128) + b'DICM' + bytes(99))\n"
        "except errors.UnsupportedFormat as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'derma-semantics[dicom]'" in done.stdout


def test_images_load_no_pydicom_before_the_first_dicom_file():
    code = (
        "import sys, derma_semantics.imaging.images; "
        "print('pydicom' in sys.modules, 'highdicom' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
