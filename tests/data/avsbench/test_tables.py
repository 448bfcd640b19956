"""The tables: real, rebuilt and malformed ones."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest

from avsbench_harness.data.avsbench import tables
from avsbench_harness.data.avsbench.tables import Row
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.tasks import AVSS, CLASSES, MS3, S4


def test_real_metadata_has_the_published_counts(meta):
    rows = tables.read_avss(meta / "metadata.csv")
    assert len(rows) == len({row.id for row in rows}) == 11_356
    assert Counter((row.subset, row.split) for row in rows) == {
        ("v1s", "train"): 3452, ("v1s", "val"): 740, ("v1s", "test"): 740,
        ("v1m", "train"): 296, ("v1m", "val"): 64, ("v1m", "test"): 64,
        ("v2", "train"): 4750, ("v2", "val"): 500, ("v2", "test"): 750,
    }  # fmt: skip
    assert Counter(row.split for row in rows) == AVSS.clips


def test_real_metadata_keeps_order_and_oddities(meta):
    rows = tables.read_avss(meta / "metadata.csv")
    assert rows[0] == Row("__GOGlHL23s_4000_9000", "val", "bird", "v1s")
    assert rows[-1].id == "ZZyatJXy5Sc_5000_10000"
    assert next(row.category for row in rows if row.id == "zVfLHhs9uv8_3000_8000") == "h orse"
    assert sum("off-the-screen" in row.category for row in rows) == 27


def test_real_metadata_has_22_videos_in_two_splits(meta):
    splits = defaultdict(set)
    for row in tables.read_metadata(meta / "metadata.csv"):
        splits[row.vid].add(row.split)
    assert sum(len(found) == 2 for found in splits.values()) == 22


def test_rebuilt_s4_table_has_the_official_size_and_categories(meta):
    rows = tables.rebuild_s4(meta / "metadata.csv")
    assert Counter(row.split for row in rows) == S4.clips
    assert {row.subset for row in rows} == {"s4"}
    categories = Counter(row.category for row in rows)
    assert len(categories) == 23
    assert categories["horse_clip-clop"] == 192  # 191 "horse" and the one "h orse"
    by_id = {row.id: row for row in rows}
    assert by_id["0d9u2CymIxc"] == Row("0d9u2CymIxc", "test", "helicopter", "s4")
    assert by_id["-_wznbUu3DY"] == Row("-_wznbUu3DY", "train", "helicopter", "s4")


def test_rebuilt_ms3_table_has_the_official_size(meta):
    rows = tables.rebuild_ms3(meta / "metadata.csv")
    assert Counter(row.split for row in rows) == MS3.clips
    assert {row.id: row.split for row in rows}["rq5RDUm2Hnk_1"] == "test"


def test_class_table_is_one_based_and_ours_zero_based(meta):
    label2idx = json.loads((meta / "label2idx.json").read_text())
    assert {name: index - 1 for name, index in label2idx.items()} == {c: i for i, c in enumerate(CLASSES)}


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_table_as_spreadsheets_save_it(tmp_path, encoding, newline):
    lines = [
        "split,name,start,category,remark",
        "train, -a ,0,dog_barking,x",
        "",
        "test,_b,6,dog_barking,",
        "",
    ]
    path = write(tmp_path, newline.join(lines), encoding)
    assert tables.read_s4(path) == [
        Row("-a", "train", "dog_barking", "s4"),
        Row("_b", "test", "dog_barking", "s4"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_headers_with_spaces_and_other_delimiters(tmp_path, delimiter):
    lines = [[" name ", " start", "category ", " split "], ["a b", "0", "dog", "train"], [" ", "", "", ""]]
    path = write(tmp_path, "\n".join(delimiter.join(line) for line in lines))
    assert tables.read_s4(path) == [Row("a b", "train", "dog", "s4")]


@pytest.mark.parametrize("name", ["a b", "日本 1", "Ünïcode", "+1", "=x", "<b>", "it's", "x" * 128])
def test_clip_names_that_submissions_can_hold(tmp_path, name):
    assert tables.read_ms3(write(tmp_path, f"video_id,split\n{name},train\n"))[0].id == name


@pytest.mark.parametrize("name", ["header", "a\u202eb", "a\x7f", "a\x85b", "x" * 129, "日" * 81])
def test_clip_names_that_submissions_cannot_hold(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be the name of a file; names have 1 to 128 printable"):
        tables.read_ms3(write(tmp_path, f"video_id,split\n{name},train\n"))


@pytest.mark.parametrize("name", ["../a", "..", ".hidden", "a/b", "a\\b", "C:a", "", "a\x00b", "/etc/passwd"])
def test_invalid_file_names_are_refused_with_their_line(tmp_path, name):
    s4 = write(tmp_path, f"name,start,category,split\nfine,0,dog,train\n{name},0,dog,train\n")
    with pytest.raises(
        UsageError, match=r"table\.csv (has in line 3 the name .* cannot be the name|cannot be read)"
    ):
        tables.read_s4(s4)
    category = write(tmp_path, f"name,start,category,split\nfine,0,{name},train\n")
    with pytest.raises(
        UsageError, match=r"table\.csv (has in line 2 the category .* cannot be|cannot be read)"
    ):
        tables.read_s4(category)
    ms3 = write(tmp_path, f"video_id,split\n{name},train\n")
    with pytest.raises(
        UsageError, match=r"table\.csv (has in line 2 the video_id .* cannot be|cannot be read)"
    ):
        tables.read_ms3(ms3)
    for row in (f"{name},fine", f"fine,{name}"):  # vid, uid
        avss = write(tmp_path, f"vid,uid,s_min,s_sec,a_obj,split,label\n{row},0,0,dog,train,v2\n")
        with pytest.raises(UsageError, match=r"cannot be"):
            tables.read_avss(avss)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,split\na,trian\n", r"in line 2 the split 'trian', which is none of train, val, test\."),
        ("video_id\na\n", r"has no column split; its first line must name video_id, split"),
        ("", r"has no column video_id and no column split"),
        ("video_id,split\na,train\nb\n", r"in line 3 a truncated row"),
        ("video_id,split\na,train\na,val\n", r"names the clip a twice"),
        ("video_id,split,split\na,train,val\n", r"has the column split twice"),
        ("video_id,split\n" + "a" * 140_000 + ",train\n", r"cannot be read as a table \(field larger"),
    ],
)
def test_errors_of_malformed_tables(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        tables.read_ms3(write(tmp_path, text))


def test_unknown_subset_and_sounding_object(tmp_path):
    header = "vid,uid,s_min,s_sec,a_obj,split,label\n"
    with pytest.raises(UsageError, match=r"in line 2 the label 'v3', which is none of v1s, v1m, v2"):
        tables.read_avss(write(tmp_path, header + "a,a_0_5000,0,0,dog,train,v3\n"))
    with pytest.raises(
        UsageError, match=r"clip a_0_5000 the sounding object 'goat', which is none of S4's 23"
    ):
        tables.rebuild_s4(write(tmp_path, header + "a,a_0_5000,0,0,goat,train,v1s\n"))


def test_a_huge_table_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(UsageError, match=r"huge\.csv has over 64 MiB"):
        tables.read_ms3(tmp_path / "huge.csv")


def test_missing_or_binary_table(tmp_path):
    with pytest.raises(MissingDataError, match=r"There is no table .*none\.csv"):
        tables.read_ms3(tmp_path / "none.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match=r"binary\.csv"):
        tables.read_ms3(binary)
