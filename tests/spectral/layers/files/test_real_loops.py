"""What Lightning, the HF Trainer and Accelerate write while they train: only the weights are measured."""

import numpy as np
import pytest
import torch
from torch import nn

from ww_callbacks import spectral
from ww_callbacks.spectral.layers import inspect

pytestmark = pytest.mark.filterwarnings("ignore")


class Settings:
    """A class of the user's own, in the hyper-parameters."""

    width = 5


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def measured(path):
    return {spec.name: spec.matrices()[0] for spec in inspect(path) if not spec.skipped}


@pytest.fixture
def lightning_checkpoint(tmp_path):
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import WeightAveraging

    class Wrapped(pl.LightningModule):
        def __init__(self, settings=None):
            super().__init__()
            self.save_hyperparameters()
            self.net = network()

        def training_step(self, batch, _):
            return self.net(batch).square().mean()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}

    def train(average):
        module = Wrapped(Settings())
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[WeightAveraging()] if average else [], default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(torch.rand(8, 4), batch_size=4))
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module, tmp_path / "last.ckpt"

    return train


def test_a_lightning_checkpoint_against_the_bare_network(lightning_checkpoint, tmp_path):
    module, path = lightning_checkpoint(average=False)
    assert list(measured(path)) == ["net.0.weight", "net.2.weight"]
    torch.save(network().state_dict(), tmp_path / "start.pt")
    result = spectral.compare(tmp_path / "start.pt", path)
    assert result.only_before == result.only_after == ()
    assert "names matched without the prefix `net.`" in result.heading()
    moved = np.linalg.norm(module.net[0].weight.detach().numpy() - network()[0].weight.detach().numpy())
    assert result.layers["distance_from_init"].iloc[0] == pytest.approx(moved, rel=1e-5)
    table = spectral.analyze(module.net, ["distance_from_init"], baseline=path)
    np.testing.assert_allclose(table.layers["distance_from_init"], 0, atol=1e-6)


def test_an_average_kept_by_lightning_is_said(lightning_checkpoint):
    _, path = lightning_checkpoint(average=True)
    assert list(measured(path)) == ["net.0.weight", "net.2.weight"]
    assert inspect(path).remarks == ("there is also current_model_state: choose it as `…:current_model_state`",)
    assert list(measured(f"{path}:current_model_state")) == ["net.0.weight", "net.2.weight"]


@pytest.fixture(scope="module")
def bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=30
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def test_the_output_folder_of_the_hf_trainer(bert, tmp_path):
    from transformers import Trainer, TrainingArguments

    settings = TrainingArguments(
        tmp_path / "out", max_steps=2, save_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True,
        disable_tqdm=True, save_only_model=False,
    )  # fmt: skip
    data = [{"input_ids": torch.tensor([1, 2, 3]), "labels": i % 2} for i in range(4)]
    Trainer(bert, settings, train_dataset=data).train()
    found = inspect(tmp_path / "out")
    assert found.remarks == ("from checkpoint-2, the newest",)
    expected = {spec.name: spec.matrices()[0] for spec in inspect(bert) if not spec.skipped}
    here = measured(tmp_path / "out")
    assert here.keys() == expected.keys()
    for name, matrix in here.items():
        np.testing.assert_array_equal(matrix, expected[name])
    base = spectral.compare(f"{tmp_path / 'out'}:checkpoint-1", bert.bert)
    assert "without the prefix `bert.`" in base.heading()
    assert base.only_after == ()


def test_the_state_that_accelerate_saves(bert, tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(bert, torch.optim.AdamW(bert.parameters()))
    model(torch.tensor([[1, 2]]), labels=torch.tensor([1])).loss.backward()
    optimizer.step()
    for safe in (True, False):
        folder = tmp_path / f"safe-{safe}"
        accelerator.save_state(folder, safe_serialization=safe)
        assert measured(folder).keys() == {spec.name for spec in inspect(bert) if not spec.skipped}
    with pytest.raises(ValueError, match=r"optimizer\.bin contains no weights"):
        inspect(folder / "optimizer.bin")
