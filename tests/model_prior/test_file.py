"""References and prior files: read whole, written whole, never unpickled."""

from __future__ import annotations

import json
import math
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import distributions, nn

import bayesreg as br
from bayesreg._support.files import atomic
from bayesreg.model_prior.file import describe_file
from bayesreg.references import load_reference


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


class Evil:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


# -- references ----------------------------------------------------------------------------------------


def test_references_from_modules_dicts_and_files(tmp_path):
    model = net()
    state = model.state_dict()
    save_model(model, str(tmp_path / "w.safetensors"))
    torch.save(state, tmp_path / "w.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "best": 0.9}, tmp_path / "w.th")
    torch.save({f"module._orig_mod.{k}": v for k, v in state.items()}, tmp_path / "c.pth")
    sources = [model, state, *(tmp_path / name for name in ("w.safetensors", "w.pt", "w.th", "c.pth"))]
    sources += [torch.compile(model), torch.optim.swa_utils.AveragedModel(model).state_dict()]
    for source in sources:
        reference = load_reference(source)
        assert set(reference) == set(state)
        assert all(torch.equal(reference[name], tensor) for name, tensor in state.items())


def test_state_dicts_of_parametrized_models_are_understood():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    assert set(load_reference(model.state_dict())) == set(load_reference(model))
    br.ModelPrior(model, br.Gaussian.centered_at(model.state_dict(), 0.1))


@pytest.mark.parametrize("seed", range(40))
def test_mutated_torch_files_are_read_or_refused(tmp_path, seed):
    torch.save(net().state_dict(), tmp_path / "w.pt")
    data, dice = bytearray((tmp_path / "w.pt").read_bytes()), random.Random(seed)
    for _ in range(8):
        data[dice.randrange(len(data))] = dice.randrange(256)
    (tmp_path / "m.pt").write_bytes(data)
    try:
        reference = load_reference(tmp_path / "m.pt")
    except br.BayesRegError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in reference.values())


def test_pickled_objects_are_never_loaded(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"weight": Evil(trap)}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weight": Evil(trap)}))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(br.PriorFileError, match="pickled objects other than tensors, which bayesreg never loads"):
            br.Gaussian.centered_at(tmp_path / name, scale=0.1)
    assert not trap.exists()


def test_unreadable_references_are_refused(tmp_path):
    torch.save(net().state_dict(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:100])
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "w.foo").write_bytes(whole)
    for name, message in [
        ("missing.pt", "no such file"),
        ("cut.pt", "corrupt"),
        ("cut.safetensors", "corrupt or truncated"),
        ("tensor.pt", "expected a state dict, got Tensor"),
        ("w.foo", r"expected a file ending in \.safetensors or \.pt"),
    ]:
        with pytest.raises(br.PriorFileError, match=message):
            br.Gaussian.centered_at(tmp_path / name, scale=0.1)


def test_bad_references_are_refused():
    with pytest.raises(br.ReferenceMismatchError, match="expected finite tensors, but w has 1 of 1 elements NaN"):
        br.Gaussian.centered_at({"w": torch.tensor([float("nan")])}, 0.1)
    with pytest.raises(br.ReferenceMismatchError, match="expected named tensors, found no tensors"):
        br.Gaussian.centered_at({}, 0.1)
    with pytest.raises(br.ReferenceMismatchError, match="entries that are not tensors: epoch"):
        br.Gaussian.centered_at({"w": torch.zeros(1), "epoch": 3}, 0.1)
    with pytest.raises(br.InvalidArgumentError, match="reference: expected a module, a state dict or a path, got int"):
        br.Gaussian.centered_at(3, 0.1)


# -- prior files ---------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    model = net().double()
    rules = {
        "0.weight": br.Gaussian.centered_at(net().double(), 0.05),
        "0.bias": br.Gaussian(torch.rand(4, dtype=torch.float64) + 0.1),
        "2.weight": br.FromDistribution(distributions.StudentT(torch.tensor(3.3), 0.0, torch.tensor(0.7))),
        "*": br.Laplace(0.1, loc=0.3),
    }
    prior = br.ModelPrior(model, rules)
    prior.save(tmp_path / "prior.safetensors")
    return model, prior, tmp_path / "prior.safetensors"


def test_save_and_load_is_bit_equal(saved):
    model, prior, path = saved
    again = br.ModelPrior.load(path, model)
    assert torch.equal(again.log_prob(), prior.log_prob())
    for one, two in zip(prior, again, strict=True):
        assert (one.name, one.rule, one.prior.family) == (two.name, two.rule, two.prior.family)
        for a, b in zip(one.prior.hyperparameters().values(), two.prior.hyperparameters().values(), strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_the_file_says_what_it_holds(saved):
    _, _, path = saved
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["bayesreg"])
    assert record["format"] == 1
    assert record["entries"][0] == {
        "name": "0.weight", "names": ["0.weight"], "shape": [4, 3], "dtype": "float64", "rule": "'0.weight'",
        "prior": 0,
    }  # fmt: skip
    assert [row["family"] for row in record["priors"]] == ["Gaussian", "Gaussian", "FromDistribution", "Laplace"]


def test_loading_into_another_model_lists_every_mismatch(saved):
    _, _, path = saved
    other = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(br.PriorFileError) as caught:
        br.ModelPrior.load(path, other)
    message = str(caught.value)
    for part in (
        "0.weight has shape (4, 3) in the file and (5, 3) in the model",
        "0.bias has shape (4,) in the file and (5,) in the model",
        "the file has 2.weight, the model does not",
        "the model has 2.0.weight, the file does not",
    ):
        assert part in message


def test_learned_scales_stay_learned(tmp_path):
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Gaussian(nn.Parameter(torch.tensor(0.3))))
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert [p.item() for p in again.parameters()] == [p.item() for p in prior.parameters()]


def damaged(path, how):
    whole = path.read_bytes()
    tensors = load_file(path)
    other = path.with_name("damaged.safetensors")
    if how == "truncated":
        other.write_bytes(whole[:-20])
    elif how == "corrupt":
        other.write_bytes(b"\x00" * 8 + whole[8:])
    elif how == "empty":
        other.write_bytes(b"")
    elif how == "pickle":
        torch.save({"a": 1}, other)
    elif how == "plain safetensors":
        save_file(tensors, other)
    else:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            record = json.loads(file.metadata()["bayesreg"])
        # As a file of an earlier version, which no checksum protects.
        assert record.pop("checksum") == "sha256"
        if how == "newer":
            record.update(format=2, bayesreg="9.9.9")
        elif how == "unknown family":
            record["priors"][0]["family"] = "Gausian"
        elif how == "missing metadata":
            del record["entries"]
        elif how == "missing tensor":
            tensors.pop("prior.0.scale")
        elif how == "bad scale":
            tensors["prior.0.scale"] = torch.tensor(-1.0)
        elif how == "foreign prior":
            record["entries"][0]["prior"] = 7
        elif how == "negative prior":
            record["entries"][0]["prior"] = -1
        elif how == "format 0":
            record["format"] = 0
        elif how == "infinite format":
            record["format"] = float("inf")
        elif how == "wrong type":
            record["priors"][2]["options"]["distribution"] = 5
        elif how == "wrong shape":
            tensors["prior.0.scale"] = torch.ones(7)
        elif how == "no list":
            record["entries"] = 7
        elif how == "foreign distribution":
            record["priors"][2]["options"]["distribution"] = "os.system"
        elif how == "listed twice":
            record["entries"].append({**record["entries"][0], "prior": 3})
        elif how == "tied twice":
            record["entries"][1]["names"].append("0.weight")
        elif how == "unread":
            record["priors"][0]["arguments"] = ["scale"]
        elif how == "integers":
            tensors["prior.0.scale"] = torch.tensor(3)
        elif how == "complex":
            tensors["prior.0.scale"] = torch.tensor(3j)
        elif how == "format as text":
            record["format"] = "1"
        elif how == "format as a real":
            record["format"] = 1.5
        elif how == "format as a truth":
            record["format"] = True
        elif how == "long shape":
            record["entries"][0]["shape"] = [2**63]
        elif how == "real shape":
            record["entries"][0]["shape"] = [4.0, 3]
        elif how == "tiny scale":
            tensors["prior.0.scale"] = torch.tensor(5e-324, dtype=torch.float64)
        text = "{" if how == "bad json" else json.dumps(record)
        if how == "a list":
            text = "[]"
        elif how == "a name twice":
            text = text.replace('"rule":', '"rule": "other", "rule":', 1)
        elif how == "deep":
            text = "[" * 100_000
        save_file(tensors, other, metadata={"bayesreg": text})
    return other


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "corrupt, truncated"),
        ("corrupt", "corrupt, truncated"),
        ("empty", "corrupt, truncated"),
        ("pickle", "such as a pickle, which bayesreg never loads"),
        ("plain safetensors", r"not a prior: ModelPrior\.save did not write it"),
        ("bad json", "damaged prior file, its metadata cannot be read"),
        ("missing metadata", "damaged prior file, its metadata lacks 'entries'"),
        ("missing tensor", r"damaged prior file, its metadata lacks 'prior\.0\.scale'"),
        ("bad scale", "Gaussian cannot be rebuilt .*scale: expected a value > 0"),
        ("newer", r"written by bayesreg 9\.9\.9 in format 2; this is .* upgrade bayesreg"),
        ("unknown family", "unknown prior family 'Gausian'; did you mean 'Gaussian'"),
        ("foreign prior", "names prior 7 of 4"),
        ("negative prior", "names prior -1 of 4"),
        ("format 0", "expected a format number, got 0"),
        ("format as text", "expected a format number, got '1'"),
        ("format as a real", r"expected a format number, got 1\.5"),
        ("format as a truth", "expected a format number, got True"),
        ("infinite format", "Infinity is no number"),
        ("a list", "expected a mapping as its metadata, got list"),
        ("a name twice", "'rule' is there twice"),
        ("deep", "its metadata cannot be read"),
        ("listed twice", r"0\.weight is there twice"),
        ("tied twice", r"0\.weight is there twice"),
        ("unread", r"no prior reads its prior\.0\.loc"),
        ("integers", r"prior\.0\.scale: expected real numbers, got torch\.int64"),
        ("complex", r"prior\.0\.scale: expected real numbers, got torch\.complex64"),
        ("long shape", r"0\.weight has shape \[9223372036854775808\]"),
        ("real shape", r"0\.weight has shape \[4\.0, 3\]"),
        ("tiny scale", "scale: expected a value whose square is a number"),
        ("wrong type", "FromDistribution cannot be rebuilt"),
        ("wrong shape", r"Gaussian scale: expected a shape that broadcasts to parameter '0\.weight'"),
        ("no list", "its metadata lacks"),
        ("foreign distribution", "FromDistribution cannot be rebuilt"),
    ],
)
def test_damaged_files_are_refused(saved, how, message):
    model, _, path = saved
    with pytest.raises(br.PriorFileError, match=message):
        br.ModelPrior.load(damaged(path, how), model)


def _rewritten(path, change):
    """Return a file with its checksum left as it was and something else changed."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(metadata, tensors)
    other = path.with_name("changed.safetensors")
    save_file(tensors, other, metadata=metadata)
    return other


def _flip(tensors, name):
    bits = tensors[name].reshape(-1).view(torch.uint8)
    bits[0] ^= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, t: _flip(t, "prior.0.loc"), "its checksum differs from its content"),
        (lambda m, t: t.update({"prior.0.loc": t["prior.0.loc"].mT.contiguous()}), "its checksum differs"),
        (lambda m, t: t.update({"prior.0.scale": t["prior.0.scale"].float()}), "its checksum differs"),
        (lambda m, t: t.update({"prior.0.loc": t["prior.0.loc"].reshape(3, 4)}), "its checksum differs"),
        (lambda m, t: m.clear(), "not a prior|its metadata is missing"),
        (lambda m, t: t.update({"prior.0.scale": t["prior.3.loc"], "prior.3.loc": t["prior.0.scale"]}), "checksum dif"),
        (lambda m, t: m.update(bayesreg=m["bayesreg"].replace('"prior": 3', '"prior": 1')), "its checksum differs"),
        (lambda m, t: m.pop("bayesreg.sha256"), "its checksum is missing"),
        (lambda m, t: m.update({"bayesreg.sha256": "0" * 64}), "its checksum differs"),
    ],
)
def test_what_was_changed_since_it_was_written_is_refused(saved, change, message):
    model, _, path = saved
    other = _rewritten(path, change)
    with pytest.raises(br.PriorFileError, match=message):
        br.ModelPrior.load(other, model)
    with pytest.raises(br.PriorFileError, match=message):
        br.Gaussian.centered_at(other, scale=0.1)


def test_every_bit_of_a_file_counts(saved):
    model, _, path = saved
    whole, accepted = path.read_bytes(), []
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            br.ModelPrior.load(path, model)
        except br.PriorFileError:
            continue
        accepted.append(place)
    # White space before the tensors may be other white space.
    assert [place for place in accepted if whole[place : place + 1] != b" "] == []


@pytest.mark.parametrize("joins", [[], ["0.weight", "0.weight"], ["2.weight"], ["0.bias", "0.bias", "0.weight"]])
def test_a_joint_prior_that_joins_others_or_one_twice_is_refused(tmp_path, joins):
    from safetensors import safe_open

    model = net()
    swag = br.transfer.SWAG(model)
    for _ in range(3):
        for p in model.parameters():
            nn.init.normal_(p)
        swag.collect()
    br.ModelPrior(model, {"*": swag.prior()}).save(tmp_path / "swag.safetensors")
    with safe_open(tmp_path / "swag.safetensors", "pt") as file:
        record = json.loads(file.metadata()["bayesreg"])
    tensors = load_file(tmp_path / "swag.safetensors")
    del record["checksum"]
    number = next(row["prior"] for row in record["entries"] if row["name"] == "0.weight")
    record["priors"][number]["options"]["joins"] = joins
    save_file(tensors, tmp_path / "forged.safetensors", metadata={"bayesreg": json.dumps(record)})
    with pytest.raises(br.PriorFileError, match=r"0\.weight is said to be joined with"):
        br.ModelPrior.load(tmp_path / "forged.safetensors", net())


def test_an_older_file_is_read_and_says_that_it_has_no_checksum():
    old = Path(__file__).parent / "files" / "prior-format-1.safetensors"
    assert any("without a checksum" in note for note in describe_file(old).notes)


def test_a_new_file_says_that_its_checksum_is_right(saved):
    assert any("Its checksum is right." in note for note in describe_file(saved[2]).notes)


def test_a_name_twice_in_the_header_of_safetensors_is_refused(saved):
    model, _, path = saved
    whole = path.read_bytes()
    header = whole[8 : 8 + int.from_bytes(whole[:8], "little")].decode().rstrip()
    first = '"prior.0.loc":' + header.split('"prior.0.loc":')[1].split("}")[0] + "}"
    longer = header[:-1] + "," + first + "}"
    path.write_bytes(len(longer.encode()).to_bytes(8, "little") + longer.encode() + whole[8 + len(header.encode()) :])
    with pytest.raises(br.PriorFileError, match=r"'prior\.0\.loc' is there twice"):
        br.ModelPrior.load(path, model)


def test_missing_file_and_wrong_suffix(tmp_path):
    with pytest.raises(br.PriorFileError, match="a directory, expected a file"):
        br.ModelPrior.load(tmp_path, net())
    with pytest.raises(br.PriorFileError, match="no such file"):
        br.ModelPrior.load(tmp_path / "no.safetensors", net())
    with pytest.raises(br.InvalidArgumentError, match=r"a name ending in \.safetensors"):
        br.ModelPrior(net(), br.Gaussian(1.0)).save(tmp_path / "prior.pt")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "prior.safetensors"
    prior = br.ModelPrior(net(), br.Gaussian(1.0))
    prior.save(path)
    before = path.read_bytes()

    def fail(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        prior.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path):
    """Renamed into place: whoever has the old file open goes on reading it, and nobody sees half of the new one."""
    path = tmp_path / "prior.safetensors"
    br.ModelPrior(net(), br.Gaussian(1.0)).save(path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        br.ModelPrior(net(), br.Gaussian(2.0)).save(path)
        assert reader.read() == before
    assert path.read_bytes() != before


def test_atomic_writes_make_ordinary_files(tmp_path):
    with atomic(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "deep" / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_file_of_every_format_is_read():
    """Written by bayesreg 0.1; a later version must read it, and to the same density."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.linspace(-0.5, 0.7, p.numel(), dtype=torch.float64).reshape(p.shape) * (i + 1) / 4)
    prior = br.ModelPrior.load(Path(__file__).parent / "files" / "prior-format-1.safetensors", model)
    assert float(prior.log_prob().detach()) == pytest.approx(-28.6534927646056, rel=1e-12)
    families = ["Gaussian", "Flat", "ScaleMixture", "Flat", "Product", "Flat", "GroupLaplace", "Flat"]
    assert [entry.prior.family for entry in prior] == families


class Stranger(br.ElementwisePrior):
    """A family that files do not know."""

    traits = br.Traits(proper=True, convex=True, smooth=True, elementwise=True, has_prox=False)

    def __init__(self, scale, *, loc=0.0):
        super().__init__(loc=loc, scale=scale)

    def offset_penalty(self, offset):
        return (offset / self.scale).square()

    def offset_slope(self, offset):
        return 2 * offset / self.scale**2

    def offset_curvature(self, offset):
        return torch.full_like(offset, 2.0) / self.scale**2

    def log_normaliser(self):
        return (self.scale * math.sqrt(math.pi)).log()

    def draw_offsets(self, like, generator):
        return self.scale * torch.randn(like.shape, generator=generator) / math.sqrt(2)


def test_unknown_families_are_refused_when_saved(tmp_path):
    with pytest.raises(br.UnsupportedError, match=r"put @br\.register_family on the class"):
        br.ModelPrior(nn.Linear(2, 2), Stranger(0.1)).save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(br.InvalidArgumentError, match="scale: expected a value > 0"):
        Stranger(-1.0)
    with pytest.raises(br.InvalidArgumentError, match="bayesreg has a family Gaussian already"):
        br.register_family(type("Gaussian", (Stranger,), {}))
