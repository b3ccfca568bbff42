"""Chest films are read from NIH's layout and from tables of indicators; damaged ones are refused."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from lwfm.errors import UserError
from lwfm.metric.data.xray import FINDINGS, Films, read_films, read_images, read_targets
from tests.helpers.chest_films import many_findings, write_nih

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def films() -> Films:
    return many_findings(24)


@pytest.fixture(scope="module")
def stored(films: Films, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nih(tmp_path_factory.mktemp("nih"), films)


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(stored, tmp_path / "nih")


def test_nih_is_read(stored: Path, films: Films) -> None:
    found = read_films(stored, size=32)
    occurring = films.targets.any(0)
    assert found.findings == tuple(np.array(FINDINGS)[occurring])
    np.testing.assert_array_equal(found.targets, films.targets[:, occurring])
    np.testing.assert_allclose(found.images, films.images, atol=0.5 / 255 + 1e-6)
    assert found.patients.tolist() == [str(i // 2) for i in range(24)]
    assert not found.test.any()
    assert (found.targets == 0).all(1).any()


def test_a_zip_is_read_like_its_folder(stored: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "nih"), "zip", stored)
    found = read_films(type(stored)(archive), size=16)
    np.testing.assert_array_equal(found.images, read_films(stored, size=16).images)


def test_images_may_lie_in_a_zip_beside_the_table(folder: Path) -> None:
    expected = read_films(folder, size=16)
    shutil.make_archive(str(folder / "images"), "zip", folder / "images_001")
    shutil.rmtree(folder / "images_001")
    np.testing.assert_array_equal(read_films(folder, size=16).images, expected.images)


def test_indicators_are_read_with_unknown_ones(folder: Path) -> None:
    expected = read_films(folder, size=16)
    (folder / "Data_Entry_2017_v2020.csv").unlink()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient_id", "sex", "Effusion", "Mass"])
        for name, patient in zip(expected.names, expected.patients, strict=True):
            table.writerow([name, patient, "F", "1.0", "" if name == expected.names[0] else "0"])
    found = read_films(folder, size=16)
    assert found.findings == ("Mass", "Effusion") or found.findings == ("Effusion", "Mass")
    mass = found.targets[:, found.findings.index("Mass")]
    assert mass.tolist() == [-1] + [0] * 23
    assert read_films(folder, size=16, findings=["Effusion"]).targets.tolist() == [[1]] * 24
    assert read_targets(folder / "labels.csv", ["Mass"]).tolist()[0] == [-1]


def test_no_patient_is_on_both_sides(stored: Path) -> None:
    found = read_films(stored, size=16)
    test = found.split(0)
    assert 0 < test.sum() < 24
    assert not np.isin(found.patients[test], found.patients[~test]).any()
    assert not np.array_equal(test, found.split(1))


def test_the_official_list_decides(folder: Path) -> None:
    (folder / "test_list.txt").write_text("00000003_000.png\n00000003_001.png\n")
    found = read_films(folder, size=16)
    assert found.names[found.split(7)].tolist() == ["00000003_000.png", "00000003_001.png"]


def replace_in_table(folder: Path, old: str, new: str) -> None:
    table = folder / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace(old, new))


def _no_table(folder: Path) -> None:
    (folder / "Data_Entry_2017_v2020.csv").unlink()


def _two_tables(folder: Path) -> None:
    shutil.copy(folder / "Data_Entry_2017_v2020.csv", folder / "Data_Entry_2017.csv")


def _no_column(folder: Path) -> None:
    replace_in_table(folder, "Patient ID", "Patient")


def _short_line(folder: Path) -> None:
    table = folder / "Data_Entry_2017_v2020.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:3], "00000009_000.png"]))


def _unknown_finding(folder: Path) -> None:
    replace_in_table(folder, "No Finding", "Broken Rib")


def _twice(folder: Path) -> None:
    replace_in_table(folder, "00000000_001.png", "00000000_000.png")


def _two_images(folder: Path) -> None:
    shutil.copytree(folder / "images_001", folder / "images_002")


def _no_image(folder: Path) -> None:
    shutil.rmtree(folder / "images_001")


def _damaged_image(folder: Path) -> None:
    image = folder / "images_001" / "images" / "00000000_000.png"
    image.write_bytes(image.read_bytes()[:200])


def _damaged_zip(folder: Path) -> None:
    (folder / "more.zip").write_bytes(b"PK\x03\x04 damaged")


def _list_of_one_film(folder: Path) -> None:
    (folder / "test_list.txt").write_text("00000003_000.png\n")


def _foreign_list(folder: Path) -> None:
    (folder / "test_list.txt").write_text("x.png\n")


def _binary_table(folder: Path) -> None:
    (folder / "Data_Entry_2017_v2020.csv").write_bytes(b"\xff\xfe\x00\x01")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_table, "holds no table of findings: Data_Entry"),
        (_two_tables, "several tables of findings: Data_Entry_2017.csv, Data_Entry_2017_v2020.csv"),
        (_no_column, "lacks the column Patient ID; it has Image Index"),
        (_short_line, "line 4 is cut short: it has no Finding Labels"),
        (_unknown_finding, "not among the 14 of NIH, such as 'Broken Rib': name those"),
        (_twice, "names the image 00000000_000.png twice"),
        (_two_images, "holds two images of the name 00000000_000.png"),
        (_no_image, "holds none of the images that Data_Entry_2017_v2020.csv names, such as 00000000_000"),
        (_damaged_image, "cannot read the image .*00000000_000.png"),
        (_damaged_zip, "more.zip is neither a folder nor a readable zip of chest films"),
        (_list_of_one_film, "the patient 3 has films in it and others that are not"),
        (_foreign_list, "names none of the images"),
        (_binary_table, "cannot read the table"),
    ],
)
def test_damaged_data_are_refused(folder: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_films(folder, size=16)


def test_findings_that_are_not_there_are_refused(stored: Path) -> None:
    with pytest.raises(UserError, match="no film with Fracture; there are Atelectasis"):
        read_films(stored, size=16, findings=["Fracture"])


def test_values_beside_0_and_1_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,patient_id,Mass\na.png,1,2\n")
    with pytest.raises(UserError, match="line 2: Mass must be 0, 1 or -1, not '2'"):
        read_films(tmp_path)


def test_sixteen_bits_are_read(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 4000, 32).astype(np.uint16), (32, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    found = read_images([tmp_path / "deep.png"], 32)[0, 0]
    assert found[0, 0] == 0
    assert np.all(np.diff(found[0]) >= 0)
    assert 0.5 < found.max() <= 1
