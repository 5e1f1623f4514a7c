"""Manifests as people, spreadsheets and other programs write them."""

from __future__ import annotations

import csv
import io
import os
import tarfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.config.data import Data
from cbir_tf.data.folder_source import folder, images_in_folder
from cbir_tf.data.sources import load_images
from cbir_tf.errors import UserError
from cbir_tf.types import UNLABELLED, ImageSet

COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a picture")
    return root


def manifest(root: Path, text: str, *images: str, encoding: str = "utf-8") -> Path:
    write(root, *images)
    (root / "manifest.csv").write_bytes(text.encode(encoding))
    return root


def read(root: Path, text: str, *images: str, encoding: str = "utf-8") -> ImageSet:
    return folder(Data(path=manifest(root, text, *images, encoding=encoding)))


def error_line(data: Data) -> str:
    with pytest.raises(UserError) as error:
        load_images(data, 0)
    assert "\n" not in str(error.value)
    return str(error.value)


def labels(images: ImageSet) -> dict[str, str | None]:
    names = (*images.class_names, None)
    return {
        id_: names[label] for id_, label in zip(images.ids.tolist(), images.labels, strict=True)
    }


# --- manifests ----------------------------------------------------------------------------------


def test_a_manifest_names_label_and_split(tmp_path):
    text = "\ufeffpath,label,split\nx/1.png,dog,train\n./2.png, cat ,val\n3.png,,\n4.png,cat,test\n"
    manifest(tmp_path, text, "x/1.png", "2.png", "3.png", "4.png", "not listed.png")
    for path in (tmp_path, tmp_path / "manifest.csv"):
        images = folder(Data(path=path))
        assert images.ids.tolist() == ["x/1.png", "2.png", "3.png", "4.png"]
        assert images.class_names == ("cat", "dog")
        assert images.labels.tolist() == [1, 0, UNLABELLED, 0]
        assert images.split.tolist() == ["train", "validation", "", "test"]
        assert images.sources[0] == tmp_path / "x/1.png"


def test_a_manifest_may_have_no_split_column_and_more_columns(tmp_path):
    text = 'label,note,path\na,"one, two",1.png\nb,,2.png\n'
    images = folder(Data(path=manifest(tmp_path, text, "1.png", "2.png")))
    assert images.ids.tolist() == ["1.png", "2.png"]
    assert images.split.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["path,label"]),
        ("path,label\n", ["lists no images"]),
        ("item,count\nnail,4\n", ["path,label", "item,count", "another name"]),
        ("1.png,a\n2.png,b\n", ["path,label", "1.png,a", "names above"]),
        ("path,label\n1.png,a\n8.png,b\n9.png,b\n", ["2 of 3", "8.png"]),
        ("path,label,split\n1.png,a,training\n", ["line 2", "'training'", "validation"]),
        ("path,label\n1.png,a\n./1.png,b\n", ["lines 2 and 3", "'1.png'", "'a'", "'b'"]),
        ("path,split\n1.png,val\n./1.png,test\n", ["lines 2 and 3", "validation", "test"]),
        ("path,label\n../1.png,a\n", ["1 of 1", "'../1.png'"]),
        ("path,label\n/etc/1.png,a\n", ["'/etc/1.png'"]),
        ("path,label\nC:\\photos\\1.png,a\n", ["C:", "path of Windows"]),
        ("path,label\nhttps://a.example/1.png,a\n", ["1 of 1", "download"]),
        ("path,label\n1.png,Lily, day\n", ["line 2", "'day'", "quotation marks"]),
        ('path,label\n1.png,"a\n2.png,b\n', ["quotation marks"]),
        ("path,label,label\n1.png,a,b\n", ["'label'", "twice"]),
        ("path,label\n" + "x" * 300 + ".png,a\n", ["1 of 1"]),
        ("path,label\n,a\n", ["line 2", "path is empty"]),
        ("path,label\n1.png\n2.png,\n", ["none of the 2 images has a label"]),
        ("path,label\n1.png,a\n2.png,a\n", ["at least two classes"]),
    ],
)
def test_manifest_mistakes_are_a_one_line_error(tmp_path, text, words):
    line = error_line(Data(path=manifest(tmp_path, text, "1.png", "2.png")))
    for word in words:
        assert word in line


def test_a_missing_or_binary_manifest_is_a_one_line_error(tmp_path):
    assert "no such manifest" in error_line(Data(path=tmp_path / "other.csv"))
    (tmp_path / "bad.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    assert "UTF-8" in error_line(Data(path=tmp_path / "bad.csv"))


@settings(max_examples=50)
@given(content=st.binary(max_size=200))
def test_no_manifest_content_gives_anything_but_a_clear_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    path.write_bytes(b"path,label,split\n" + content)
    error_line(Data(path=path))


def test_the_clothing_manifest_has_its_published_sizes(shared_data, tmp_path):
    with tarfile.open(shared_data / "clothing224.tar") as archive:
        member = next(each for each in archive if each.name.endswith("manifest.csv"))
        text = archive.extractfile(member).read().decode()
    listed = [row["path"] for row in csv.DictReader(io.StringIO(text))]
    for each in {Path(path).parent for path in listed}:
        (tmp_path / each).mkdir(parents=True)
    for path in listed:
        (tmp_path / path).touch()
    images = load_images(Data(path=manifest(tmp_path, text)), 0)
    counts = [int((images.split == name).sum()) for name in ("train", "validation", "test")]
    assert counts == [3068, 341, 372]
    assert len(images.class_names) == 10


# --- as other programs write them ---------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "path;label;year\n1.png;cat;2019\nx/2.png;dog;\n",
        "path\tlabel\tyear\n1.png\tcat\t2019\nx/2.png\tdog\t\n",
        "path|label|year\n1.png|cat|2019\nx/2.png|dog|\n",
        "sep=;\r\npath;label;year\r\n1.png;cat;2019\r\nx/2.png;dog;\r\n",
        '"sep=\t"\npath\tlabel\tyear\n1.png\tcat\t2019\nx/2.png\tdog\n',
        "Path, LABEL ,year\n1.png, cat ,2019\n x/2.png,dog,\n",
        "filename,class,year\n1.png,cat,2019\nx/2.png,dog,\n",
        "image,label,year\n1.png,cat,2019\nx/2.png,dog,\n",
        "File Name,Category,year\n./1.png,cat,2019\nx//2.png,dog,\n",
        '"year","image_path","class_name"\r\n"2019","1.png","cat"\r\n"","x/2.png","dog"\r\n',
        ",path,label,year\n0,1.png,cat,2019\n1,x/2.png,dog,\n",
        "path,label,year,,\n1.png,cat,2019,,\n,,,,\nx/2.png,dog,,,\n,,,,\n\n",
        "\r\rpath,label,year\r1.png,cat,2019\rx/2.png,dog,\r",
        "path,label,year\nx\\2.png,dog,\n.\\1.png,cat,2019\n",
    ],
)
def test_every_usual_writing_of_a_table_is_read(tmp_path, text):
    images = read(tmp_path, text, "1.png", "x/2.png")
    assert labels(images) == {"1.png": "cat", "x/2.png": "dog"}
    found = dict(zip(images.ids.tolist(), images.metadata, strict=True))
    assert found == {"1.png": {"year": 2019}, "x/2.png": {}}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_every_usual_encoding_is_read(tmp_path, encoding, delimiter, caplog):
    text = f"path,label\n1.png,{COMPOSED}\n2.png,Gr\u00f6\u00dfe\n".replace(",", delimiter)
    images = read(tmp_path, text, "1.png", "2.png", encoding=encoding)
    assert images.class_names == (COMPOSED, "Gr\u00f6\u00dfe")
    assert ("Windows-1252" in caplog.text) == (encoding == "cp1252")


@pytest.mark.parametrize(
    "content",
    [
        "path,label\n1.png,\u043a\u043e\u0442\n".encode("cp1251"),  # cat, in Russian
        "path,label\n1.png,\u732b\n".encode("cp932"),  # and in Japanese
        "path,label\n1.png,\u03b3\u03ac\u03c4\u03b1\n".encode("cp1253"),  # and in Greek
        "path,label\n1.png,\u00fcber\n".encode() + b"2.png,\xfcber\n",  # two encodings in one file
        b"PK\x03\x04 an Excel workbook",
        b"\xff\xd8\xff\xe0 a picture",
    ],
)
def test_what_is_in_no_known_encoding_is_refused(tmp_path, content):
    write(tmp_path, "1.png", "2.png")
    (tmp_path / "manifest.csv").write_bytes(content)
    assert "UTF-8" in error_line(Data(path=tmp_path))


CELLS = st.text(st.sampled_from("ab,;\t|\"'\u00e9\u0301 \n0.5"), max_size=5)


@settings(max_examples=80)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    newline=st.sampled_from(["\n", "\r\n"]),
    names=st.permutations(["Path", "CLASS", "note"]),
    separator_line=st.booleans(),
)
def test_a_written_table_is_read_back(
    tmp_path_factory, rows, delimiter, encoding, quoting, newline, names, separator_line
):
    root = tmp_path_factory.mktemp("manifest")
    file = io.StringIO()
    if separator_line:
        file.write(f"sep={delimiter}{newline}")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=newline)
    writer.writerow(names)
    for number, (label, note) in enumerate(rows):
        values = {"Path": f"{number}.png", "CLASS": label, "note": f"n{note}"}
        writer.writerow([values[name] for name in names])
    listed = [f"{number}.png" for number in range(len(rows))]
    images = read(root, file.getvalue(), *listed, encoding=encoding)
    assert list(labels(images).values()) == [
        unicodedata.normalize("NFC", label.strip()) or None for label, _ in rows
    ]
    assert [each["note"] for each in images.metadata] == [f"n{note}".strip() for _, note in rows]


# --- columns ------------------------------------------------------------------------------------


def test_a_column_of_paths_alone_lists_unlabelled_images(tmp_path):
    images = read(tmp_path, "path\n1.png\na,b.png\n", "1.png", "a,b.png")
    assert labels(images) == {"1.png": None, "a,b.png": None}
    images = read(tmp_path, "1.png\na,b.png\n", "1.png", "a,b.png")
    assert labels(images) == {"1.png": None, "a,b.png": None}


def test_a_column_is_numeric_only_if_every_cell_is(tmp_path):
    text = (
        "path,sku,code,serial,big,price\n"
        "1.png,12,5E3,1_000,9007199254740993,1.10\n"
        "2.png,0012,7,5,1,2.5\n"
        "3.png,,,,,\n"
    )
    first, second, third = read(tmp_path, text, "1.png", "2.png", "3.png").metadata
    assert first == {
        "sku": "12",
        "code": "5E3",
        "serial": "1_000",
        "big": "9007199254740993",
        "price": 1.1,
    }
    assert second == {"sku": "0012", "code": "7", "serial": "5", "big": "1", "price": 2.5}
    assert third == {}


def test_a_synonym_of_split_is_one_only_if_it_holds_splits(tmp_path):
    images = read(tmp_path, "path,label,subset\n1.png,a,Train\n2.png,b,test\n", "1.png", "2.png")
    assert images.split.tolist() == ["train", "test"]
    images = read(tmp_path, "path,label,subset\n1.png,a,train\n2.png,b,north\n", "1.png", "2.png")
    assert images.split.tolist() == ["", ""]
    assert images.metadata[1] == {"subset": "north"}


def test_a_column_beside_the_label_stays_metadata(tmp_path):
    images = read(tmp_path, "filename,path,class,label\nx,1.png,wild,cat\n", "1.png")
    assert labels(images) == {"1.png": "cat"}
    assert images.metadata[0] == {"filename": "x", "class": "wild"}


# --- paths --------------------------------------------------------------------------------------


def test_paths_relative_to_the_folder_above_are_named(tmp_path):
    photos = manifest(tmp_path / "photos", "path,label\nphotos/1.png,a\n", "1.png")
    assert f"relative to {tmp_path}: move the manifest there" in error_line(Data(path=photos))


def test_files_elsewhere_have_stable_unique_ids(tmp_path):
    write(tmp_path, "other/1.png", "photos/1.png", "photos/sub/2.png")
    text = (
        "path,label\n"
        "../other/1.png,a\n"
        f"{tmp_path}/other/1.png,a\n"
        "1.png,b\n"
        f"{tmp_path}/photos/sub/2.png,b\n"
        "../photos/sub/../1.png,b\n"
    )
    images = read(tmp_path / "photos", text)
    assert images.ids.tolist() == ["../other/1.png", "1.png", "sub/2.png"]
    assert [each.read_bytes() for each in images.sources] == [b"a picture"] * 3
    (tmp_path / "photos").rename(tmp_path / "moved")
    images = read(tmp_path / "moved", "path\n../other/1.png\n1.png\nsub/2.png\n")
    assert images.ids.tolist() == ["../other/1.png", "1.png", "sub/2.png"]
    images = read(tmp_path / "moved", f"path\n{tmp_path}/other/1.png\n")
    assert images.ids.tolist() == [f"{tmp_path}/other/1.png"]


def test_an_absolute_path_through_a_link_is_below_the_folder(tmp_path):
    write(tmp_path, "photos/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    text = f"path\n{tmp_path}/link/1.png\n1.png\n"
    assert read(tmp_path / "photos", text).ids.tolist() == ["1.png"]


@pytest.mark.parametrize("on_disk", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("listed", [COMPOSED, DECOMPOSED])
def test_files_are_found_in_either_unicode_form(tmp_path, on_disk, listed):
    text = f"path,label\n{listed}/{listed}.png,{listed}\n{on_disk}/2.png,{on_disk}\n"
    images = read(tmp_path, text, f"{on_disk}/{on_disk}.png", f"{on_disk}/2.png")
    assert images.ids.tolist() == [f"{COMPOSED}/{COMPOSED}.png", f"{COMPOSED}/2.png"]
    assert images.class_names == (COMPOSED,)
    assert all(each.is_file() for each in images.sources)


def test_class_folders_in_both_unicode_forms_are_one_class(tmp_path):
    write(tmp_path, f"{COMPOSED}/1.png", f"{DECOMPOSED}/2.png", f"{DECOMPOSED}/1.png", "bar/1.png")
    if len(os.listdir(tmp_path)) < 3:
        pytest.skip("this file system has one form of a name")
    images = folder(Data(path=tmp_path))
    assert images.class_names == (COMPOSED, "bar")
    assert labels(images) == {
        f"{COMPOSED}/1.png": COMPOSED,
        f"{COMPOSED}/2.png": COMPOSED,
        f"{DECOMPOSED}/1.png": COMPOSED,
        "bar/1.png": "bar",
    }


# --- lines that contradict, lines without a file ------------------------------------------------


def test_a_file_listed_again_is_one_image(tmp_path, caplog):
    text = "path,label,box\n1.png,a,3\n./1.png,,4\n1.png,a,3\n2.png,,\n2.png,b,\n"
    images = read(tmp_path, text, "1.png", "2.png")
    assert labels(images) == {"1.png": "a", "2.png": "b"}
    assert images.metadata[0] == {"box": 3}
    assert "1 lines list a file again with other metadata" in caplog.text
    assert "line 3" in caplog.text


def test_missing_files_are_listed_and_the_others_read(tmp_path, caplog):
    listed = [f"{number}.png" for number in range(10)]
    text = "path,label\n" + "".join(f"{name},{name > '5'}\n" for name in [*listed, "gone.png"])
    images = read(tmp_path, text, *listed)
    assert "not found, left out: gone.png" in caplog.text
    assert "1 of 11 files" in caplog.text
    assert len(images) == 11  # so that a file that comes back moves no other to another split
    data = Data(path=tmp_path, max_missing=0.05)
    assert "1 of 11 files were not found" in error_line(data)
    assert "data.max_missing" in error_line(data)


@pytest.mark.parametrize(
    "text",
    ["item,count\nnail,4\n", "file,pages\nreport.pdf,3\n", "", "\0\1\2", 'a,"b\nc\n', "path\n"],
)
def test_a_manifest_of_something_else_does_not_stop_a_folder_of_images(tmp_path, text, caplog):
    images = images_in_folder(manifest(tmp_path, text, "1.png", "x/2.png"))
    assert labels(images) == {"1.png": None, "x/2.png": None}
    assert "manifest.csv" in caplog.text


def test_a_wrong_line_of_a_list_of_images_is_not_passed_over(tmp_path):
    with pytest.raises(UserError, match="lines 2 and 3"):
        images_in_folder(manifest(tmp_path, "path,label\n1.png,a\n1.png,b\n", "1.png"))


def test_a_manifest_of_any_name_can_be_given_in_place_of_a_folder(tmp_path):
    write(tmp_path, "1.png", "2.png")
    (tmp_path / "list.tsv").write_text("image\tlabel\n1.png\ta\n")
    for images in (
        images_in_folder(tmp_path / "list.tsv"),
        folder(Data(path=tmp_path / "list.tsv")),
    ):
        assert labels(images) == {"1.png": "a"}
