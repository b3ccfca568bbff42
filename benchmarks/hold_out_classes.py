"""Split a data set of ``train`` and ``val`` into ``train``, ``val`` and ``test``.

    python -m benchmarks.hold_out_classes FOLDER build/grocery

Every fourth training class becomes a validation class and the former validation classes become the test
classes, so that nothing is chosen on the classes that a final table reports. Images are linked, not copied.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EVERY = 4


def hold_out_classes(source: Path, target: Path) -> dict[str, int]:
    """Link the class folders of ``source`` into ``target``; return the number of classes in each part."""
    training = sorted(folder for folder in (source / "train").iterdir() if folder.is_dir())
    parts = {
        "train": [folder for number, folder in enumerate(training) if number % EVERY != EVERY - 1],
        "val": training[EVERY - 1 :: EVERY],
        "test": sorted(folder for folder in (source / "val").iterdir() if folder.is_dir()),
    }
    for part, folders in parts.items():
        (target / part).mkdir(parents=True, exist_ok=True)
        for folder in folders:
            link = target / part / folder.name
            if not link.exists():
                link.symlink_to(folder.resolve(), target_is_directory=True)
    return {part: len(folders) for part, folders in parts.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a folder with train/<class>/ and val/<class>/")
    parser.add_argument("target", type=Path, help="where the three parts are made")
    options = parser.parse_args()
    print(hold_out_classes(options.source, options.target))
