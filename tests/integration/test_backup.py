"""Backup and restore of a local stack's data: the database and the files that it names, together."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import RoundMetrics, StartModels
from ratchet.contracts.rounds import RoundRequest
from ratchet.contracts.search import SearchRequest, Usage
from ratchet.contracts.trainer import ModelKind, ModelRegistration
from ratchet.models.checkpoint import file_sha256, local_checkpoint
from ratchet.stack.backup import back_up, restore_into
from ratchet.stack.config import StackConfig
from ratchet.stack.errors import StackError
from ratchet.stack.local import local_stack
from ratchet.states import NodeState, RoundState, SearchState
from ratchet.store.engine import make_engine
from ratchet.store.ids import new_id
from ratchet.store.nodes import NodeRecord
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore

NANO = Path(__file__).parents[2] / "models" / "nano" / "policy"
PROOF = {"program": "print(6 * 7)"}


@dataclass(frozen=True)
class Filled:
    """A data folder with a search and a round that made a data set and a policy; its databases run."""

    data: Path
    database: str
    search: UUID
    dataset: Path
    model: str
    checkpoint: Path


async def fill(data: Path, database: str, engine: AsyncEngine, cache: Path) -> Filled:
    searches, rounds, registry = SearchStore(engine), RoundStore(engine), Registry(engine)
    search_id, _ = await searches.create(SearchRequest(problem="6 * 7?"), None)
    claim = await searches.claim(search_id, "w", 60, 5)
    assert claim is not None
    root = NodeRecord(id="root", parent=None, ordinal=0, depth=0, state=NodeState.OPEN, task="0")
    await searches.journal(claim, [root], Usage())
    await searches.finish(claim, SearchState.ANSWERED_UNVERIFIED, SearchOutcome(answer="42", proof=PROOF))
    folder = data / "rounds" / "first" / "round-1"
    folder.mkdir(parents=True)
    dataset, checkpoint = folder / "sft.jsonl", folder / "policy" / "model"
    dataset.write_text('{"problem": "6 * 7?"}\n')
    shutil.copytree(NANO, checkpoint)
    # What a stage is writing at this moment is no part of a backup.
    (folder / ".prm.partial").mkdir()
    await rounds.create(RoundRequest(run="first"))
    held = await rounds.claim("t", 60, 5)
    assert held is not None
    models = StartModels(
        base="b", base_uri=str(checkpoint), policy="b", policy_uri=str(checkpoint), prm="prm1-likelihood"
    )
    held = await rounds.advance(held, RoundState.SEARCHING, RoundMetrics(models=models))
    dataset_id = new_id()
    await registry.add_dataset(
        held, dataset_id, "first-r1", str(dataset), file_sha256(dataset, lambda _: None), 1
    )
    found = local_checkpoint(checkpoint, cache)
    await registry.register(
        ModelRegistration(
            version=found.version, kind=ModelKind.POLICY, uri=str(checkpoint), sha256=found.sha256
        ),
        dataset_id,
    )
    return Filled(data, database, search_id, dataset, found.version, checkpoint)


@pytest.fixture(scope="module")
async def filled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Filled]:
    data = tmp_path_factory.mktemp("backup") / "data"
    async with local_stack(StackConfig(data=data, services=())) as urls:
        engine = make_engine(urls.database)
        yield await fill(data, urls.database, engine, data.parent / "cache")
        await engine.dispose()


async def test_a_backup_of_a_running_stack_is_restored_elsewhere_with_all_that_belongs_together(
    filled: Filled, tmp_path: Path
) -> None:
    backup, elsewhere = tmp_path / "backup", tmp_path / "other folder" / "data"
    made = await back_up(filled.data, filled.database, backup)
    assert made.database_bytes > 0
    assert made.file_bytes > filled.checkpoint.joinpath("model.safetensors").stat().st_size
    assert not list(backup.rglob(".*.partial"))
    # Afterwards, the backup does not change with what it was made of.
    await SearchStore(make_engine(filled.database)).create(SearchRequest(problem="later"), None)
    assert await restore_into(elsewhere, backup) == made

    async with local_stack(StackConfig(data=elsewhere, services=())) as urls:
        engine = make_engine(urls.database)
        searches, rounds = SearchStore(engine), RoundStore(engine)
        page = await searches.list_recent()
        assert [each.problem for each in page.searches] == ["6 * 7?"]
        assert await searches.proof(filled.search) == PROOF
        assert [node.id for node in await searches.load_nodes(filled.search)] == ["root"]
        lineage = await Registry(engine).lineage(filled.model)
        assert lineage is not None
        made_of = lineage.versions[0]
        assert made_of.dataset is not None
        moved = {
            made_of.dataset.uri: elsewhere / filled.dataset.relative_to(filled.data),
            made_of.model.uri: elsewhere / filled.checkpoint.relative_to(filled.data),
        }
        for uri, path in moved.items():
            assert uri == str(path)
            assert path.exists()
        (view,) = await rounds.rounds("first")
        assert view.metrics.models is not None
        assert view.metrics.models.base_uri == made_of.model.uri
        await engine.dispose()
    with pytest.raises(StackError, match="has a database already"):
        await restore_into(elsewhere, backup)


async def test_a_backup_is_refused_where_files_are_not_what_the_database_says(
    filled: Filled, tmp_path: Path
) -> None:
    content = filled.dataset.read_bytes()
    target = tmp_path / "backup"
    try:
        for spoil in (lambda: filled.dataset.write_text("{}\n"), filled.dataset.unlink):
            spoil()
            with pytest.raises(StackError, match=r"do not fit together: .*sft\.jsonl"):
                await back_up(filled.data, filled.database, target)
            assert list(tmp_path.iterdir()) == [], "half a backup was left"
    finally:
        filled.dataset.write_bytes(content)
    await back_up(filled.data, filled.database, target)
    with pytest.raises(StackError, match="is there already"):
        await back_up(filled.data, filled.database, target)


async def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is no backup"):
        await restore_into(tmp_path / "data", tmp_path)
    assert list(tmp_path.iterdir()) == []
