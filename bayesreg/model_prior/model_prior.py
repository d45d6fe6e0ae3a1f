"""Rules that give every parameter of a model its prior."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from bayesreg._support.calls import answering
from bayesreg._support.drawing import draw
from bayesreg._support.sharding import gather_sum, is_sharded, local, shard_like
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError, PatternError, UnsupportedError, kind_of, nearest
from bayesreg.model_prior.binding import bind
from bayesreg.model_prior.describe import describe_entries
from bayesreg.model_prior.entry import Entry, active
from bayesreg.model_prior.file import save_model_prior
from bayesreg.model_prior.file_binding import Differences, load_entries
from bayesreg.model_prior.rules import group_key, hint_for, matched, on_kernels, require_kernels, values_by_entry
from bayesreg.optimizers import OptimizerLike
from bayesreg.optimizers.attached import install_guard
from bayesreg.priors import Belief, Prior
from bayesreg.priors.contract.asking import local_part
from bayesreg.priors.contract.joint import SingleTerm, Term, terms_of
from bayesreg.priors.contract.tensors import widened
from bayesreg.references import Rename
from bayesreg.selection import (
    Selection,
    SelectorLike,
    any_of,
    parameters_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ModelPrior"]

_SHORTHAND = (
    "One prior was given for the whole model: it is on matrices and kernels; biases, norms, other vectors and scalars "
    "are flat."
)


class ModelPrior(nn.Module):
    """A prior over all parameters of a model, by rules; the first rule that matches a parameter decides.

    Rule keys are globs over parameter names (`*` crosses dots), selectors (`br.biases`, `br.norms`,
    `br.embeddings`, combined by `|`, `&`, `~`), module classes (all parameters inside such a module) or predicates
    on `br.ParameterInfo`. A single prior in place of rules goes on matrices and kernels (`br.kernels`), told by shape,
    module and name; biases, normalisation parameters and other vectors and scalars (slopes, temperatures, tokens) stay
    flat, as `describe()` lists. Tied weights count once. Frozen parameters are reported and skipped.

    Args:
        model: The model; compiled, wrapped or parametrized ones are seen through.
        rules: One prior, or a mapping from rule keys to priors.
        notes: Sentences for `describe()`, which files keep.

    Raises:
        PatternError: If a glob matches nothing, or earlier rules took all that a rule matches.
        CoverageError: If a trainable parameter is covered by no rule, or a single prior by none of the parameters.
        ReferenceMismatchError: If reference weights do not fit; every mismatch is listed.
        InvalidArgumentError: If `rules` is neither, or a hyper-parameter has the wrong shape.

    Example:
        >>> import bayesreg as br
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> prior = ModelPrior(model, {br.biases: br.Flat(), "2.*": br.Gaussian(1.0), "*": br.Laplace(0.1)})
        >>> [(entry.name, entry.prior.family) for entry in prior]
        [('0.weight', 'Laplace'), ('0.bias', 'Flat'), ('2.weight', 'Gaussian'), ('2.bias', 'Flat')]
        >>> prior.log_prob().shape
        torch.Size([])
    """

    @answering
    def __init__(
        self, model: nn.Module, rules: Belief | Mapping[SelectorLike, Belief], *, notes: Sequence[str] = ()
    ) -> None:
        super().__init__()
        install_guard()
        if not isinstance(model, nn.Module):
            raise InvalidArgumentError(
                f"model: expected a module, got {type(model).__name__}; it comes first: br.ModelPrior(model, prior)."
            )
        if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
            raise InvalidArgumentError(f"notes: expected a list of sentences, got {kind_of(notes)}.")
        self.shorthand = isinstance(rules, Belief)
        if isinstance(rules, Belief):
            rules = on_kernels(rules)
        if not isinstance(rules, Mapping) or not rules:
            raise InvalidArgumentError(
                f"rules: expected a prior or a mapping from rules to priors, got {kind_of(rules)}{hint_for(rules)}."
            )
        for key, prior in rules.items():
            if not isinstance(prior, Belief):
                raise InvalidArgumentError(
                    f"rules[{key!r}]: expected a prior such as br.Gaussian(0.1), got {kind_of(prior)}."
                )
        infos = parameters_of(model)
        if not infos:
            raise InvalidArgumentError(f"model: {type(model).__name__} has no parameters.")
        if self.shorthand:
            require_kernels(infos)
        entries, said = bind(model, matched(infos, rules))
        self._take(entries, [*said, *notes])

    def _take(self, entries: list[Entry], notes: Sequence[str] = ()) -> None:
        self.notes = tuple(notes)
        self._entries = entries
        pairs = [(entry.info, entry.prior) for entry in entries if entry.prior is not None]
        #: The densities that it is made of: one per parameter, and one for all parts of a joint one.
        self.terms: tuple[Term, ...] = tuple(terms_of(pairs))
        unique = {id(e.prior): e.prior for e in entries if e.prior is not None}
        # Registered so that .to(), parameters() (learned scales) and state_dict() see them.
        self.priors = nn.ModuleList(unique.values())

    @classmethod
    def _from_entries(cls, entries: list[Entry], notes: Sequence[str] = ()) -> Self:
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self.shorthand = False
        install_guard()
        self._take(entries, notes)
        return self

    # -- looking at it ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> Belief:
        """Return the prior of the parameter of this name: any of its names, also that of `named_parameters()`."""
        if not isinstance(name, str):
            raise KeyError(f"expected the name of a parameter, got {kind_of(name)}")
        for entry in self._entries:
            if name in (*entry.info.names, *entry.info.raw) and entry.prior is not None:
                return entry.prior
        known = [n for e in self._entries for n in e.info.names]
        raise KeyError(f"no parameter {name!r} with a prior{nearest(name, known)}")

    def active(self) -> list[tuple[Entry, Belief]]:
        """Return the entries that count now: covered and trainable."""
        return active(self._entries)

    def kinked(self) -> list[tuple[Entry, Prior]]:
        """Return the active entries whose prior has a kink or a boundary, where weights can come to rest exactly."""
        return [
            (entry, prior) for entry, prior in self.active() if isinstance(prior, Prior) and not prior.traits.smooth
        ]

    def active_terms(self) -> list[tuple[Term, list[Entry]]]:
        """Return the densities that count now, each with its parameters that are trained.

        Returns:
            The terms, in the order of their first parameters.

        Raises:
            UnsupportedError: If a density over several parameters is trained in part, and has no value then.
        """
        trained = {entry.name: entry for entry, _ in self.active()}
        found = [(term, [trained[name] for name in term.names if name in trained]) for term in self.terms]
        for term, entries in found:
            if entries:
                term.require([entry.name for entry in entries])
        return [(term, entries) for term, entries in found if entries]

    # -- its density -----------------------------------------------------------------------------------

    @answering
    def log_prob(self, values: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the log prior density of the model's parameters, in nats, normalised.

        Improper (flat) parts count 0. Frozen parameters are not counted. Differentiable. Nothing is changed.

        Args:
            values: Values in place of the current ones, by the names that `model.named_parameters()` has, as
                `torch.func.functional_call` takes them; those that are left out have their current values, and those of
                frozen parameters do not count.

        Returns:
            A float64 scalar.

        Raises:
            InvalidArgumentError: If a name is none of the model's, or a value has another shape.

        Example:
            >>> import bayesreg as br
            >>> prior = ModelPrior(nn.Linear(3, 2), br.Gaussian(0.5))
            >>> draw = prior.draw()
            >>> torch.allclose(prior.log_prob(draw), br.Gaussian(0.5).log_prob(draw["weight"]))
            True
        """
        penalty = self.penalty(values)
        return self.log_constant().to(penalty.device) - penalty

    @answering
    def penalty(self, values: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return −log p of the parameters without its constant, in nats: what the MAP objective adds.

        Args:
            values: As in `log_prob`.

        Returns:
            A float64 scalar; differentiable.

        Raises:
            InvalidArgumentError: As in `log_prob`.
        """
        given = {} if values is None else values_by_entry(self._entries, values)
        shares = []
        for term, entries in self.active_terms():
            here = {entry.name: local(given.get(entry.name, entry.parameter)) for entry in entries}
            # A frozen factor takes part with its value, which may be given too.
            here.update({name: given[name] for name in term.names if name in given})
            shares.append((widened(self._localized(term, entries[0]).penalty(here)), entries[0].parameter))
        total = gather_sum(shares)
        return torch.zeros((), dtype=torch.float64) if total is None else total

    def _localized(self, term: Term, entry: Entry) -> Term:
        if not is_sharded(entry.parameter):
            return term
        assert entry.prior is not None
        shard = local_part(entry.prior, entry.parameter)
        assert isinstance(shard, Prior)
        return SingleTerm(entry.info, shard)

    def log_constant(self) -> Tensor:
        """Return the constant of `log_prob`: log_prob = log_constant − penalty. A float64 scalar, in nats."""
        total = torch.zeros((), dtype=torch.float64)
        for term, entries in self.active_terms():
            total = total + term.log_constant({entry.name: entry.parameter.shape for entry in entries}).to(total)
        return total

    @torch.no_grad()
    @answering
    def sample_(self, *, generator: torch.Generator | None = None) -> list[str]:
        """Replace the parameters by a draw from the prior, in place.

        Args:
            generator: Source of randomness; torch's global one by default.

        Returns:
            The names of the parameters left as they were: frozen ones and those under an improper prior.
        """
        found = self._draws(generator)
        by_name = {entry.name: entry.parameter for entry in self._entries}
        for name, drawn in found.items():
            local(by_name[name]).copy_(shard_like(drawn, by_name[name]))
        return [entry.name for entry in self._entries if entry.name not in found]

    def _draws(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return a draw of the trained parameters under a proper prior, by the entries' names."""
        found: dict[str, Tensor] = {}
        for term, entries in self.active_terms():
            if all(entry.prior is not None and entry.prior.traits.proper for entry in entries):
                like = {
                    entry.name: torch.empty(
                        entry.parameter.shape,
                        dtype=torch.promote_types(entry.parameter.dtype, torch.float32),
                        device=entry.parameter.device,
                    )
                    for entry in entries
                }
                found.update(term.draw(like, generator))
        return found

    @torch.no_grad()
    @answering
    def draw(self, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return a draw from the prior by parameter name, the model left as it is.

        With `torch.func.functional_call(model, draw, inputs)` it is a draw from the prior over functions (of a model in
        half precision, cast it to that first). The names are those of `model.named_parameters()`: of the tensors behind
        a parametrization, not of what it makes of them.

        Args:
            generator: Source of randomness; torch's global one by default.

        Returns:
            Trainable parameters under a proper prior, in float32 or better; the others are left out.

        Raises:
            UnsupportedError: If none is left.

        Example:
            >>> import bayesreg as br
            >>> prior = br.ModelPrior(nn.Linear(3, 2), br.Gaussian(0.5))
            >>> {name: tuple(drawn.shape) for name, drawn in prior.draw().items()}
            {'weight': (2, 3)}
        """
        raw = {entry.name: entry.info.raw[0] for entry in self._entries}
        drawn = self._draws(generator)
        if not drawn:
            families = dict.fromkeys(prior.family for _, prior in self.active())
            raise UnsupportedError(
                f"draw: expected a parameter that is trained under a density that can be drawn from, got "
                f"{', '.join(families) or 'none that is trained'}."
            )
        return {raw[name]: values for name, values in drawn.items()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the weights against their prior, layer by layer.

        Args:
            ax: Where to draw; a new figure by default.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed (`pip install 'bayesreg[viz]'`).
        """
        return draw("plot_layers", self, ax)

    # -- its use ---------------------------------------------------------------------------------------

    @answering
    def param_groups(self, only: Selection | None = None) -> list[dict[str, Any]]:
        """Return the trainable parameters as groups for any torch optimizer.

        Parameters whose Gaussian has the same std share a group, so that the optimizer's own (fused) weight decay
        can do the work. `weight_decay` is 0 in every group; `br.attach` sets it.

        Args:
            only: A rule key (as in the constructor), or a list of them, that selects some: for
                `optimizer.add_param_group` after layers were unfrozen. Default: all.

        Returns:
            A list of group dictionaries.

        Raises:
            PatternError: If `only` matches no parameter that is trained.
            InvalidArgumentError: If it is no rule key.

        Example:
            >>> import bayesreg as br
            >>> model = nn.Linear(3, 2)
            >>> groups = ModelPrior(model, br.Gaussian(0.1)).param_groups()
            >>> [len(group["params"]) for group in groups]
            [1, 1]
        """
        together = {
            name: index
            for index, term in enumerate(self.terms)
            if not isinstance(term, SingleTerm)
            for name in term.names
        }
        groups: dict[tuple[object, ...], list[nn.Parameter]] = {}
        selected = None if only is None else any_of(only, "only")
        for entry, prior in self.active():
            if selected is not None and not selected(entry.info):
                continue
            groups.setdefault(group_key(prior, together.get(entry.name)), []).append(entry.parameter)
        if selected is not None and not groups:
            names = [name for entry in self._entries for name in entry.info.names]
            hint = nearest(only, names) if isinstance(only, str) else ""
            raise PatternError(
                f"only {selected.label}: expected a rule that matches a trained parameter, got none{hint or '.'}"
            )
        return [{"params": parameters, "weight_decay": 0.0} for parameters in groups.values()]

    @answering
    def describe(
        self,
        num_data: int | LossScale | None = None,
        *,
        optimizer: OptimizerLike | None = None,
        per_parameter: bool = False,
    ) -> Table:
        """Return a table of which parameters have which prior.

        Args:
            num_data: Size of the training set (or a LossScale); adds the equivalent weight_decay.
            optimizer: The optimizer in use, for that column; a coupled one is assumed if None.
            per_parameter: One row per parameter instead of one per rule and prior.

        Returns:
            A table: `print(table)`, `rich.print(table)`, HTML in a notebook, `table.to_dict()` for data.
        """
        scale = None if num_data is None else as_loss_scale(num_data)
        said = [_SHORTHAND, *self.notes] if self.shorthand else self.notes
        return describe_entries(self._entries, said, scale, optimizer, per_parameter)

    def __repr__(self) -> str:
        return f"ModelPrior({len(self)} parameters, {len(self.priors)} priors)"

    @answering
    def same_as(self, other: object) -> bool:
        """Return whether another prior says the same of parameters of the same names.

        Args:
            other: The other prior, of this model or another.

        Returns:
            Whether names, shapes and densities agree.
        """
        if not isinstance(other, ModelPrior) or len(self) != len(other):
            return False
        theirs = {entry.name: entry for entry in other}
        for entry in self:
            found = theirs.get(entry.name)
            if found is None or entry.parameter.shape != found.parameter.shape:
                return False
            if not (entry.prior is found.prior or (entry.prior is not None and entry.prior.same_as(found.prior))):
                return False
        return True

    # -- keeping it ------------------------------------------------------------------------------------

    @answering
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the prior to a safetensors file: names, shapes, dtypes, families and hyper-parameters.

        The file is written whole or not at all.

        Args:
            path: Where to; ends in `.safetensors`.

        Raises:
            InvalidArgumentError: If the path ends in anything else.
            UnsupportedError: If a `FromDistribution` cannot be rebuilt from its arguments.
        """
        save_model_prior(self._entries, path, self.notes)

    @classmethod
    @answering
    def load(
        cls,
        path: str | os.PathLike[str],
        model: nn.Module,
        *,
        new: Selection | None = None,
        head: Belief | None = None,
        rename: Rename | None = None,
        extra: Literal["raise", "ignore"] = "raise",
    ) -> Self:
        """Read a prior that `save` wrote and bind it to a model; what differs is decided by arguments.

        Of a low-rank Gaussian over many parameters those that are left out are integrated out.

        Args:
            path: The file.
            model: A model with the same parameter names and shapes, but for what follows.
            new: Rule key, or a list of them, of parameters that the file does not have, or has for another task:
                "head.*".
            head: The prior of those; needed with `new`.
            rename: From names in the file to names in the model, as in `load_reference`; None leaves one out.
            extra: "raise" (default) or "ignore": parameters of the file that the model does not have.

        Returns:
            The prior.

        Raises:
            InvalidArgumentError: If the arguments are of other types.
            PatternError: If `new` matches nothing.
            PriorFileError: If the file is not readable, newer than this bayesreg, or does not fit the model (every
                mismatch is listed).
            ReferenceMismatchError: If a rule of `rename` matches nothing.

        Example:
            >>> import tempfile, bayesreg as br
            >>> source, target = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, k)) for k in (5, 2))
            >>> path = f"{tempfile.mkdtemp()}/prior.safetensors"
            >>> br.transfer.l2_sp(source, source, body_scale=0.1).save(path)
            >>> prior = ModelPrior.load(path, target, new="1.*", head=br.Gaussian(1.0))
            >>> prior["1.weight"].describe()
            'Gaussian, std 1, centred on 0'
        """
        if not isinstance(path, str | os.PathLike) or not isinstance(model, nn.Module):
            raise InvalidArgumentError(
                f"ModelPrior.load(path, model): expected a path and a module, got {type(path).__name__} and "
                f"{type(model).__name__}."
            )
        entries, notes = load_entries(path, parameters_of(model), Differences(new, head, rename, extra))
        return cls._from_entries(entries, notes)
