from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from enrich.engine import memory
from enrich.engine.memory import Room, is_out_of_memory


def test_what_the_allocator_says_is_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_so_is_what_python_and_devices_say(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not() -> None:
    assert not is_out_of_memory(RuntimeError("device lost"))


def model(dtype: torch.dtype = torch.float32, **about: Any) -> Any:
    config = SimpleNamespace(num_hidden_layers=10, num_attention_heads=8, hidden_size=512, **about)
    config.get_text_config = lambda: config
    return SimpleNamespace(config=config, dtype=dtype, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("dtype", "about", "rows"),
    [
        (torch.float32, {}, 64),  # 2 * 10 * 512 * 4 bytes a position, 4 MB a row of 100: 64 rows take 262 MB of 600
        (torch.bfloat16, {}, 128),
        (torch.bfloat16, {"num_key_value_heads": 2}, 256),
        (torch.bfloat16, {"multi_query": True}, 256),
        (torch.bfloat16, {"head_dim": 256}, 32),
    ],
)
def test_rows_are_halved_until_keys_and_values_take_half_of_what_is_free(
    dtype: torch.dtype, about: dict[str, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: 600_000_000)
    room = Room(model(dtype, **about), has_own_pass=True)
    assert room.rows(256, 100) == rows
    assert room.rows(256, 100, held=10**10) == 256
    assert room.rows(8, 100) == 8
    assert room.rows(256) == 256


def test_a_few_rows_are_tried_however_little_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: 1000)
    assert Room(model()).rows(256, 100) == memory.TILE_ROWS
    assert Room(model(torch.bfloat16)).rows(256, 100) == 1
    assert Room(model(torch.bfloat16), deterministic=True).rows(256, 100) == 32


def test_no_more_rows_than_are_worth_filling_up_where_bits_depend_on_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: None)
    assert Room(model(torch.bfloat16)).rows(256, 100) == 128
    assert Room(model(torch.bfloat16), has_own_pass=True).rows(256, 100) == 256
    assert Room(model(torch.float32)).rows(256, 100) == 256


def test_where_free_memory_can_t_be_told_rows_are_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: None)
    assert Room(model()).rows(256, 10**9) == 256


@pytest.mark.parametrize(
    ("group", "top", "names"),
    [
        ("0::/a.slice/b.service", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/a.slice/b.service",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_free_is_what_the_tightest_control_group_leaves(
    tmp_path: Path, group: str, top: str, names: tuple[str, str, str]
) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def limit(directory: str, most: str, used: int) -> None:
        at = f"sys/fs/cgroup/{top}/{directory}"
        write(f"{at}/{names[0]}", f"{most}\n")
        write(f"{at}/{names[1]}", f"{used}\n")
        write(f"{at}/memory.stat", f"anon 5\n{names[2]} 100\n")

    assert memory._free_of_machine(tmp_path) is None
    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert memory._free_of_machine(tmp_path) == 8000 * 1024
    write("proc/self/cgroup", f"12:cpu:/elsewhere\n{group}\n")
    limit("a.slice/b.service", "max", 1_000_000)
    assert memory._free_of_machine(tmp_path) == 8000 * 1024
    limit("a.slice", "3000000", 1_000_000)
    assert memory._free_of_machine(tmp_path) == 2_000_100
    limit("a.slice/b.service", "1500000", 1_000_000)
    assert memory._free_of_machine(tmp_path) == 500_100


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_this_machine_tells_what_is_free() -> None:
    free = memory.free_memory(torch.device("cpu"))
    assert free is not None
    assert 0 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_that_fewer_rows_fit_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "enrich")
    monkeypatch.setattr(memory, "free_memory", lambda _: 600_000_000)
    room = Room(model())
    assert [room.rows(256, 100) for _ in range(3)] == [64] * 3
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["64 rows at once instead of 256"]
