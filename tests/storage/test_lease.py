from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
from obstore.store import MemoryStore

from enrich.errors import TryAgain
from enrich.storage.lease import Holder, Lease, _process, holder, lease_url
from enrich.storage.remote import Remote
from enrich.storage.url import Url

OUTPUT = Url.parse("s3://bucket/out.parquet")


@pytest.fixture
def remote() -> Remote:
    return Remote(_stores={("s3", "bucket"): MemoryStore()})


def left_by(remote: Remote, **what: object) -> None:
    left = Holder("far", 7, "2026-01-01T00:00:00+00:00", time.time() + 100, "token")
    remote.write(lease_url(OUTPUT), replace(left, **what).as_bytes())


def test_one_holds_it_and_lets_go_of_it(remote: Remote) -> None:
    with Lease(remote, OUTPUT) as lease:
        lease.check()
        assert holder(remote, OUTPUT) is not None
        with pytest.raises(TryAgain, match=r"s3://bucket/out\.parquet is being written by process \d+ on .*, since 20"):
            Lease(remote, OUTPUT).__enter__()
        lease.check()
    assert remote.read(lease_url(OUTPUT)) is None and holder(remote, OUTPUT) is None


def test_it_is_renewed(remote: Remote) -> None:
    with Lease(remote, OUTPUT, seconds=0.4) as lease:
        time.sleep(1)
        lease.check()
        assert holder(remote, OUTPUT) is not None


def test_one_that_is_over_is_taken_over_and_one_that_is_not_is_not(remote: Remote) -> None:
    left_by(remote)
    with pytest.raises(TryAgain, match="process 7 on far"):
        Lease(remote, OUTPUT).__enter__()
    left_by(remote, expires=time.time() - 1)
    with Lease(remote, OUTPUT):
        pass
    remote.write(lease_url(OUTPUT), b"no lease")
    with Lease(remote, OUTPUT):
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_one_of_a_process_that_is_gone_is_taken_over_at_once(remote: Remote) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        left_by(remote, process=_process(process.pid))
        with pytest.raises(TryAgain):
            Lease(remote, OUTPUT).__enter__()
        process.communicate(b"\n")
    with Lease(remote, OUTPUT):
        pass


def test_one_that_was_taken_over_stops_its_former_holder_and_stays(remote: Remote) -> None:
    with Lease(remote, OUTPUT, seconds=0.4) as lease:
        left_by(remote)
        time.sleep(0.5)
        with pytest.raises(TryAgain, match="was taken over by process 7 on far"):
            lease.check()
    assert holder(remote, OUTPUT) is not None


def test_one_that_could_not_be_renewed_in_time_is_not_relied_on(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(remote, OUTPUT, seconds=0.3) as lease:

        def refuse(*_: object) -> None:
            raise TryAgain("the network is down")

        monkeypatch.setattr(remote, "replace", refuse)
        time.sleep(0.5)
        with pytest.raises(TryAgain, match="could not be renewed in time"):
            lease.check()
    assert remote.read(lease_url(OUTPUT)) is not None  # it may be another's by now
