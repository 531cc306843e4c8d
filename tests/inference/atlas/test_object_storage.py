"""Atlases in object stores, before a real S3 server on loopback: as in a folder, bit for bit, whatever happens."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from atlases import ROW, SHARDS, AtlasRecipe, environment, stop_after, tree
from commands import generate_words, refused, run_command

pytest.importorskip("moto", reason="needs an S3 server, moto's; install causcell[dev]")
from object_store import (
    SpoiledError,
    google_settings,
    make_bucket,
    objects,
    refuse_writing,
    run_google,
    run_moto,
    run_proxy,
    settings,
    store_of,
    strip_conditions,
)

from causcell._internal.remote import any_path
from causcell.atlas import journal as journal_module
from causcell.atlas import lease as lease_module
from causcell.atlas import plan as plan_module
from causcell.atlas import record_batches
from causcell.atlas.executors import Dask, Processes
from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.lease import Lease
from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.object_storage import ObjectStorage
from causcell.atlas.verify import verify_atlas
from causcell.errors import AtlasError, OutputBusyError, OutputError, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

LARGE = {"shard_size": 1024 * ROW}
"""Shards that an atlas has one of, for tests to which their number is nothing."""

_buckets = iter(range(10**6))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server for all tests of this file."""
    with run_moto() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a bucket of the test's own, on the server that the environment tells."""
    for name, value in settings(server).items():
        monkeypatch.setenv(name, value)
    return make_bucket(server, f"bucket{next(_buckets)}")


@pytest.fixture
def place(bucket: str) -> str:
    return f"{bucket}/folder/atlas.zarr"


def values(url: str) -> dict[str, bytes]:
    """All objects of an atlas but its journal."""
    return {name: content for name, content in objects(url).items() if not name.startswith(f"{FOLDER}/")}


def storage_at(url: str) -> ObjectStorage:
    path = any_path(url)
    assert not isinstance(path, Path)
    return ObjectStorage(path)


def lease_at(url: str) -> Lease:
    return storage_at(url)._make_lease()


# -- as in a folder ----------------------------------------------------------------------------------------------------


def test_it_is_that_of_a_folder(recipe: AtlasRecipe, whole: dict[str, bytes], place: str) -> None:
    """Byte by byte; it opens, is verified, not made again, and kept from another plan and from what is no atlas."""
    import anndata
    from zarr.storage import ObjectStore

    assert recipe.write(place).made > 0
    assert values(place) == whole
    adata = anndata.read_zarr(ObjectStore(store_of(place), read_only=True))
    assert adata.n_obs == recipe.plan().rows
    assert recipe.write(place).made == 0
    found = verify_atlas(place)
    assert (found.sound, found.read_only) == (True, False)
    with pytest.raises(OutputExistsError, match=r"'s3://.*/atlas\.zarr' holds an atlas of another plan: seed"):
        recipe.write(place, seed=2)
    store_of(f"{place}/..".replace("/atlas.zarr/..", "/other.zarr")).put("notes.txt", b"mine")
    with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
        recipe.write(place.replace("atlas.zarr", "other.zarr"))
    assert values(place) == whole


def test_many_shards_have_their_annotations_in_groups(
    two_files: AtlasRecipe, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder, interrupted on the way."""
    monkeypatch.setattr(plan_module, "GROUPED_FROM", 2)
    monkeypatch.setattr(plan_module, "GROUP", 3)
    for module in (record_batches, journal_module):
        monkeypatch.setattr(module, "BATCH", 3)
    two_files.write(tmp_path / "atlas.zarr")
    with monkeypatch.context() as context:
        stop_after(context, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            two_files.write(place)
    assert len(Journal(any_path(place)).records()) == 5
    two_files.write(place)
    assert values(place) == tree(tmp_path / "atlas.zarr")
    assert verify_atlas(place).sound
    assert two_files.write(place).made == 0


def test_what_is_damaged_is_found_and_made_anew(recipe: AtlasRecipe, whole: dict[str, bytes], place: str) -> None:
    recipe.write(place)
    store = store_of(place)
    store.put("X/c/2/0", whole["X/c/3/0"])
    store.delete("obs/_index/c/4")
    store.put("X/strange", b"?")
    found = verify_atlas(place)
    assert (dict(found.damaged), found.unknown) == ({2: ("X/c/2/0",), 4: ("obs/_index/c/4",)}, ("X/strange",))
    store.delete("X/strange")
    assert recipe.write(place).made > 0
    assert values(place) == whole


def test_a_cluster_commits_for_the_run(recipe: AtlasRecipe, whole: dict[str, bytes], place: str) -> None:
    """Its workers open the store by its URL, and the lock by the run's token."""
    distributed = pytest.importorskip("distributed")
    recipe.write(place)
    journal = Journal(any_path(place))
    with journal.locked():
        for shard in (1, 5):
            journal.withdraw(shard)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        recipe.write(place, executor=Dask(cluster.scheduler_address))
    assert values(place) == whole


def test_expression_from_embeddings(recipe: AtlasRecipe, whole: dict[str, bytes], bucket: str) -> None:
    recipe.write(f"{bucket}/embeddings.zarr", store="embeddings")
    sizes = {name: recipe.options[name] for name in ("chunk_size", "shard_size", "layout")}
    materialize_atlas(recipe.generator.model, f"{bucket}/embeddings.zarr", f"{bucket}/atlas.zarr", **sizes)
    assert values(f"{bucket}/atlas.zarr") == whole


def test_a_csr_matrix_is_assembled_there(recipe: AtlasRecipe, bucket: str, tmp_path: Path) -> None:
    for place in (f"{bucket}/atlas.zarr", tmp_path / "atlas.zarr"):
        recipe.write(place, layout="csr")
    assert verify_atlas(f"{bucket}/atlas.zarr").sound
    assert values(f"{bucket}/atlas.zarr") == tree(tmp_path / "atlas.zarr")


def test_cells_that_are_objects_too(
    recipe: AtlasRecipe, whole: dict[str, bytes], bucket: str, repository: Path, tmp_path: Path
) -> None:
    """The same bytes, by workers that open both by their URLs; the journal notes size and ETag of the cells."""
    store_of(bucket).put("cells.h5ad", Path(str(recipe.cells)))
    recipe.write(f"{bucket}/atlas.zarr", cells=f"{bucket}/cells.h5ad", executor=Processes(2))
    assert values(f"{bucket}/atlas.zarr") == whole
    (noted,) = Journal(any_path(f"{bucket}/atlas.zarr")).origin()["files"]
    etag = store_of(bucket).head("cells.h5ad")["e_tag"]
    assert (noted["path"], noted["modified"]) == (f"{bucket}/cells.h5ad", etag)
    words = [f"{bucket}/cells.h5ad", "--models", repository, "--no-progress"]
    assert run_command("embed", *words, "--out", tmp_path / "embedded.h5ad") == 0


def test_google_s_generations(
    recipe: AtlasRecipe, whole: dict[str, bytes], place: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By obstore's own client for ``gs://``, before a proxy that speaks its conditions to the S3 server."""
    with run_google(server) as address:
        for name, value in google_settings(address).items():
            monkeypatch.setenv(name, value)
        url = place.replace("s3://", "gs://")
        recipe.write(url)
        assert verify_atlas(url).sound
        with storage_at(url).locked(), pytest.raises(OutputBusyError, match="is writing to 'gs://"):
            recipe.write(url)
    assert values(place) == whole


# -- stopped -----------------------------------------------------------------------------------------------------------


def test_what_is_finished_is_kept(
    recipe: AtlasRecipe, whole: dict[str, bytes], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 3, RuntimeError("midway"))
        with pytest.raises(RuntimeError, match="midway"):
            recipe.write(place)
    assert "zarr.json" not in values(place)
    plan = recipe.plan()
    kept = sum(plan.cells_of(shard).stop - plan.cells_of(shard).start for shard in range(3))
    assert recipe.write(place).made == plan.rows - kept * plan.request.rows_per_cell
    assert values(place) == whole


def test_metadata_of_a_run_that_never_began_are_written_again(
    recipe: AtlasRecipe, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "begin", lambda *_: (_ for _ in ()).throw(RuntimeError("before the plan")))
        with pytest.raises(RuntimeError, match="before the plan"):
            recipe.write(place, **LARGE)
    assert len(values(place)) > 10
    recipe.write(place, **LARGE, draws=2)
    assert verify_atlas(place).sound


DRIVER = """
import sys, time, warnings
warnings.simplefilter("ignore")
from atlases import AtlasRecipe
from causcell.generator import Generator
models, data, out = sys.argv[1:]
AtlasRecipe(Generator.open(models, threads=1, batch_size=64), data).write(
    out, on_event=lambda event: time.sleep(0.1)  # so that the kill finds it under way
)
"""


def test_killed_and_gone_on_with_at_once(
    recipe: AtlasRecipe, whole: dict[str, bytes], place: str, repository: Path, server: str
) -> None:
    """SIGKILL leaves a lease; of a process of this machine that has ended, nobody waits until it runs out."""
    words = [sys.executable, "-c", DRIVER, str(repository), str(recipe.cells), place]
    with subprocess.Popen(words, env=environment(**settings(server))) as writer:
        store = store_of(place)
        for _ in range(1200):
            if any(store.list(f"{FOLDER}/shards")):
                break
            assert writer.poll() is None
            time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
    assert 0 < len(Journal(any_path(place)).records()) < SHARDS
    assert b'"token": ""' not in bytes(store.get(f"{FOLDER}/lock").bytes())
    recipe.write(place)
    assert values(place) == whole
    assert verify_atlas(place).sound


def test_a_put_that_breaks_in_the_middle(
    recipe: AtlasRecipe, whole: dict[str, bytes], place: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is sent again; always it ends the run, and the next one goes on."""
    broken: list[str] = []

    def spoil(method: str, path: str, headers: dict[str, str]) -> None:
        often = 1 if "/X/c/1/" in path else 10**6 if "/X/c/2/" in path else 0
        if method == "PUT" and broken.count(path) < often:
            broken.append(path)
            raise SpoiledError(None)

    monkeypatch.setattr("causcell.atlas.object_storage.open_store", _impatient)
    with run_proxy(server, spoil) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy)
        with pytest.raises(OutputError, match=r"can't be used \(.*error.*\); if the service does not answer"):
            recipe.write(place)
    assert len(set(broken)) == 2
    assert set(Journal(any_path(place)).records()) == {0, 1}
    recipe.write(place)
    assert values(place) == whole


def _impatient(path, timeout="600s", retries=5):
    from causcell._internal.remote import open_store

    return open_store(path, timeout, retries=2)


# -- one writer at a time ----------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused(recipe: AtlasRecipe, place: str) -> None:
    with (
        Journal(any_path(place)).locked(),
        pytest.raises(OutputBusyError, match=r"process \d+ on '.*' is writing to 's3://.*', until \d\d:\d\d:\d\d UTC"),
    ):
        recipe.write(place)
    assert values(place) == {}
    assert not [name for name in objects(place) if "probe" in name]


def test_of_many_that_want_it_one_gets_it(place: str) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    together = Barrier(6, timeout=60)

    def want(_: int) -> bool:
        lease = lease_at(place)
        together.wait()
        try:
            with lease.held():
                together.wait()
                lease.check()
                return True
        except OutputBusyError:
            together.wait()
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(want, range(6))) == 1
    with lease_at(place).held():  # given back
        pass


def test_a_lease_is_renewed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "SECONDS", 0.6)
    with lease_at(place).held():
        time.sleep(2.5)
        with pytest.raises(OutputBusyError), lease_at(place).held():
            pass


def test_who_was_held_up_commits_nothing_more(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease runs out by the clock of the server; it puts nothing after that, and does not free the lock."""
    monkeypatch.setattr(lease_module, "SECONDS", 0.5)
    slow, quick = storage_at(place), storage_at(place)
    with slow.locked():
        monkeypatch.setattr(Lease, "_renew_until_ended", lambda self: None)
        slow._held._ended.set()
        slow.write("zarr.json", b"mine")
        time.sleep(2.5)
        with quick.locked():
            (tmp_path / "file").write_bytes(b"late")
            for late in (
                lambda: slow.write("zarr.json", b"late"),
                lambda: slow.write("plan.json", b"late", new=True),
                lambda: slow.put({"X/c/0/0": tmp_path / "file"}),
                lambda: slow.remove("zarr.json"),
            ):
                with pytest.raises(OutputBusyError, match=r"the lock of 's3://.*' was lost to process \d+"):
                    late()
            assert values(place) == {"zarr.json": b"mine"}
            quick.write("zarr.json", b"yours")
    with pytest.raises(OutputBusyError, match="is writing to"), quick.locked(), slow.locked():
        pass


def test_a_pause_between_asking_and_putting_is_found_out(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is lost after it was looked at: what the new holder has put is not overwritten."""
    slow = storage_at(place)
    with slow.locked():
        slow.write("zarr.json", b"first")
        check, paused = ObjectStorage._check_lease, []

        def paused_check(self: ObjectStorage) -> None:
            check(self)
            if self is slow and not paused:
                paused.append(True)
                store = store_of(place)
                body = bytes(store.get(f"{FOLDER}/lock").bytes()).replace(slow.lease.encode(), b"f" * 32)
                store.put(f"{FOLDER}/lock", body)  # as who takes over an expired lease
                store.put("zarr.json", b"yours")

        monkeypatch.setattr(ObjectStorage, "_check_lease", paused_check)
        with pytest.raises(OutputBusyError, match="was lost to"):
            slow.write("zarr.json", b"mine")
    assert objects(place)["zarr.json"] == b"yours"


def test_two_plans_never_share_a_place(place: str) -> None:
    """Even where the lock was removed by hand."""
    storage = storage_at(place)
    with storage.locked():
        storage.write("plan.json", b"{1}", new=True)
        storage.write("plan.json", b"{1}", new=True)  # the answer was lost, and it is sent again
        with pytest.raises(OutputExistsError, match="was written by another run meanwhile"):
            storage.write("plan.json", b"{2}", new=True)
        store_of(place).delete(f"{FOLDER}/lock")
        with pytest.raises(OutputBusyError, match="its lock was removed"):
            storage.write("zarr.json", b"{}")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"5", b"{" * 5000, b'{"token": 5, "pid": true, "seconds": 1e999}',
        b'{"token": "x", "pid": "../..", "host": {}, "seconds": -1}', b'{"token": "x", "pid": 1e300}',
    ],
)  # fmt: skip
def test_a_strange_lock_is_held_by_somebody(place: str, content: bytes) -> None:
    """Until it runs out; what it says is not believed any further."""
    store_of(place).put(f"{FOLDER}/lock", content)
    with pytest.raises(OutputBusyError, match=r"is writing to 's3://"), lease_at(place).held():
        pass


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, 501])
def test_a_server_without_conditions_is_refused(
    recipe: AtlasRecipe, place: str, server: str, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    def not_implemented(method: str, path: str, headers: dict[str, str]) -> None:
        if "if-none-match" in headers:
            raise SpoiledError(501)

    with run_proxy(server, strip_conditions if status is None else not_implemented) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        with pytest.raises(OutputError, match=r"can't be written to safely: its server does not put objects on a cond"):
            recipe.write(place)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert objects(place) == {}


def test_who_may_read_alone_verifies_and_does_not_write(
    recipe: AtlasRecipe, place: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write(place, **LARGE)
    with run_proxy(server, refuse_writing) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        found = verify_atlas(place)
        assert (found.sound, found.read_only) == (True, True)
        with pytest.raises(OutputError, match=r"is not open to this user .*AWS_ACCESS_KEY_ID"):
            recipe.write(place, **LARGE)


def test_there_is_no_bucket_or_no_server(recipe: AtlasRecipe, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AtlasError, match="there is no such bucket"):
        recipe.write("s3://absent-bucket/atlas.zarr")
    with pytest.raises(OutputError, match="there is no such bucket"), lease_at("s3://absent-bucket/atlas.zarr").held():
        pass
    monkeypatch.setattr("causcell.atlas.object_storage.open_store", _impatient)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(AtlasError, match=r"can't be used .*if the service does not answer, try again later"):
        recipe.write(f"{bucket}/atlas.zarr")


# -- the command line --------------------------------------------------------------------------------------------------


def test_commands(
    recipe: AtlasRecipe, bucket: str, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = generate_words(Path(str(recipe.cells)), repository, f"{bucket}/atlas.zarr", "--do", "stim=IFN")
    assert run_command(*words, "--plan") == 0
    assert "are free" not in capsys.readouterr().out
    assert objects(bucket) == {}
    assert run_command(*words) == 0
    assert f"{bucket}/atlas.zarr" in capsys.readouterr().out
    assert run_command("verify", f"{bucket}/atlas.zarr", "--no-progress") == 0
    capsys.readouterr()
    message = refused(capsys, "verify", f"{bucket}/absent.zarr", "--no-progress")
    assert f"'{bucket}/absent.zarr' is no atlas of causcell's" in message
    assert list(tmp_path.iterdir()) == []


def test_no_password_reaches_a_message(
    recipe: AtlasRecipe, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in ("s3://me:hunter2@bucket/atlas.zarr", "s3://bucket/atlas.zarr?X-Amz-Signature=hunter2"):
        words = generate_words(Path(str(recipe.cells)), repository, url, "--do", "stim=IFN")
        message = refused(capsys, *words)
        assert "hunter2" not in message
        assert "leave it out: credentials are taken from the environment" in message
