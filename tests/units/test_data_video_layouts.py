"""Layouts: which files of a folder are clips, their classes and groups. No video is read here."""

from pathlib import Path

from tenfold.data import Layout, class_folders, ucf11, ucf50, youtube_celebrities


def listed(layout: Layout, root: Path, *names: str) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """(file, class, group) of clips and (file, reason) of others, for empty files of these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    listing = layout(root)
    clips = [(file.path.relative_to(root).as_posix(), file.label, file.group) for file in listing.files]
    return clips, [(path.relative_to(root).as_posix(), reason) for path, reason in listing.skipped]


def test_ucf11_has_groups_in_folders_and_annotations_beside_them(tmp_path: Path) -> None:
    clips, skipped = listed(
        ucf11,
        tmp_path,
        "biking/v_biking_02/v_biking_02_01.mpg",
        "biking/v_biking_01/v_biking_01_02.mpg",
        "biking/v_biking_01/v_biking_01_01.mpg",
        "biking/v_biking_01/notes.txt",
        "biking/v_biking_01/.hidden",
        "biking/Annotation/v_biking_01_01.xgtf",
        "walking/extra/a.MPG",
        "readme.txt",
    )
    assert clips == [
        ("biking/v_biking_01/v_biking_01_01.mpg", "biking", "g01"),
        ("biking/v_biking_01/v_biking_01_02.mpg", "biking", "g01"),
        ("biking/v_biking_02/v_biking_02_01.mpg", "biking", "g02"),
        ("walking/extra/a.MPG", "walking", "extra"),
    ]
    assert skipped == [("biking/v_biking_01/notes.txt", ".txt is not the ending of a video file")]


def test_ucf50_has_groups_in_names(tmp_path: Path) -> None:
    clips, skipped = listed(ucf50, tmp_path, "Diving/v_Diving_g07_c02.avi", "Diving/other.avi", "Diving/README")
    assert clips == [("Diving/v_Diving_g07_c02.avi", "Diving", "g07")]
    assert skipped == [
        ("Diving/README", "no ending is not the ending of a video file"),
        ("Diving/other.avi", "it lacks _gNN_cMM at the end of its name"),
    ]


def test_celebrities_are_named_by_files_or_by_folders(tmp_path: Path) -> None:
    clips, skipped = listed(
        youtube_celebrities,
        tmp_path,
        "0001_01_Al_Gore.avi",
        "0188_03_021_al_pacino.avi",
        "gore.avi",
        "Bill Gates/0490_02_007_bill_gates.avi",
        "Bill Gates/speech.mp4",
    )
    assert clips == [
        ("0001_01_Al_Gore.avi", "Al_Gore", "01"),
        ("0188_03_021_al_pacino.avi", "al_pacino", "03"),
        ("Bill Gates/0490_02_007_bill_gates.avi", "Bill Gates", "02"),
        ("Bill Gates/speech.mp4", "Bill Gates", "speech"),
    ]
    assert skipped == [("gore.avi", "it lacks a name such as 0001_01_Firstname_Lastname")]


def test_other_folders_have_any_names(tmp_path: Path) -> None:
    clips, skipped = listed(class_folders, tmp_path, "b/2.mkv", "a/1.webm", "a/.DS_Store")
    assert clips == [("a/1.webm", "a", "a/1"), ("b/2.mkv", "b", "b/2")]
    assert skipped == []
