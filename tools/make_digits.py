#!/usr/bin/env python3
"""Makes integrations/data/digits.bin, the images that the training examples learn from.

    pip install scikit-learn==1.9.1
    python3 tools/make_digits.py

They are the 1797 handwritten digits of the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak;
UCI Machine Learning Repository, 1998, doi 10.24432/C50P49, licence CC BY 4.0), which scikit-learn ships. A record of 65 bytes for
each: 8 x 8 pixels from 0 to 16, row by row, and the digit.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def main() -> None:
    digits = load_digits()
    records = np.concatenate([digits.data, digits.target[:, None]], axis=1)
    assert records.shape == (1797, 65) and records.min() == 0 and records.max() == 16
    target = Path(__file__).resolve().parent.parent / "integrations" / "data" / "digits.bin"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(records.astype(np.uint8).tobytes())
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
