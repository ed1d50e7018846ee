"""RankMethod: the interface of everything that finds ranks by training."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from tenfold.bayes.guards import check_loss, check_rates, warn_removed
from tenfold.bayes.reduction import Reduction, removal
from tenfold.bayes.report import Decision, LayerDecision, RankReport
from tenfold.bayes.run import Run, Spectra, agree
from tenfold.bayes.shrink import RankedWeight, Rounding, Rule
from tenfold.bayes.surgery import apply


class RankMethod(abc.ABC):
    """Something that is attached to a model, adds to its loss, and decides its ranks.

    Use:
        method.watch(optimizer)
        for x, y in loader:
            method.step()                                     # first of all, once for each step of the optimiser
            loss = method.loss(F.cross_entropy(model(x), y))
            ...                                               # backward, optimiser, learning rate as always
        print(method.shrink())                                # smaller factors, in the model and in the optimiser
        method.finish()                                       # the model is a plain one again
    """

    quantity: ClassVar[str]  # what `spectra` holds
    run: Run

    @abc.abstractmethod
    def penalty(self) -> Tensor:
        """(): what is added to the mean loss of an example, with a gradient; 0 where a method acts on the factors itself."""

    @abc.abstractmethod
    def spectra(self) -> Spectra:
        """By layer and rank one value for each slice, (size of the rank,): large ones are needed, small ones are not."""

    @abc.abstractmethod
    def marks(self, name: str) -> Mapping[str, Tensor]:
        """By rank, which slices of a layer the method itself would keep: (size of the rank,), true or false."""

    @abc.abstractmethod
    def _update(self) -> None:
        """What the method does in a step, without gradients."""

    @abc.abstractmethod
    def _values(self, name: str) -> list[Tensor]:
        """The factors of a layer that the model computes with in eval."""

    @abc.abstractmethod
    def _follow(self, name: str, reduction: Reduction) -> None:
        """Brings the method's own tensors to the new ranks of a layer, whose parameters are now what `_values` were made into."""

    def _settle(self) -> None:
        """Makes the parameters what the model computes with in eval, where the method reads them in another way."""
        return

    def finish(self) -> None:
        """Takes the method out of the model: factors are plain parameters again. The optimiser is then to be made anew.

        It comes last, after `shrink`: only `report` and `state_dict` can be called then. A second call does nothing.
        """
        if not self.run.is_released:
            with torch.no_grad():
                self._settle()
            self.run.release()

    def _spread(self, name: str) -> list[Tensor] | None:
        """The variances of the entries of a layer's factors, where the method knows them."""
        return None

    def watch(self, optimizer: Optimizer) -> None:
        """Follows an optimiser: no decision before its rates have decayed, and decisions change its parameters and state.

        Several are followed where each has parameters of its own; one with the parameters of another takes the place of that one. In a
        training that goes on from a saved state, watch after `load_state_dict`: the highest rates so far are in the state.

        Raises:
            ValueError: the optimiser was made before the method was attached, and lacks the parameters that this added; or it keeps
                lists of its own of parameters, as LBFGS and ZeroRedundancyOptimizer do.
        """
        self.run.watch(optimizer)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step: to be called once for each step of the optimiser, before the forward pass and before gradients are zeroed.

        Args:
            closure: zeroes the gradients, computes the loss, calls backward and returns the loss; `DLRT` alone needs it.

        Raises:
            ValueError: a factor holds values that are not finite.
            RuntimeError: the method is finished.
        """
        self.run.check_held()
        self.run.steps += 1
        with torch.no_grad():
            self._update()
            self.run.observe(self.spectra(), self._values)
        return None

    def loss(self, task: Tensor) -> Tensor:
        """(): the mean loss of an example, which is given, plus the penalty.

        Raises:
            ValueError: the loss is not finite, or not one number.
            TypeError: it is no tensor.
            RuntimeError: the method is finished.
        """
        self.run.check_held()
        check_loss(task, self.run.steps)
        return task + self.penalty().to(task.dtype)

    def decide(self, rule: Rule | None = None) -> dict[str, Reduction]:
        """What a rule would make of every weight now; nothing is changed.

        A weight that has collapsed against its start is removed by every rule: what is left of it is an optimiser's noise.

        Raises:
            ValueError: the rule speaks of layers that the method does not have.
            TypeError: it is no rule.
            RuntimeError: the method is finished.
        """
        self.run.check_held()
        rule = self.default_rule() if rule is None else rule
        if not isinstance(rule, Rule):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"the rule of the decision is {rule!r}, a {type(rule).__name__}; a Rounding or a Selection is needed: give one like "
                "Rounding(0.01)"
            )
        rule.check(self.run.weights)
        collapsed = self.run.measure(self._values)
        reductions = {}
        with torch.no_grad():
            for name, weight in self.run.live.items():
                factors = [value.detach().double() for value in self._values(name)]
                if name in collapsed:
                    reductions[name] = removal(weight.network, factors)
                else:
                    candidate = RankedWeight(name, weight.network, weight.fold, factors, self.marks(name), self._spread(name) or ())
                    reductions[name] = rule.reduce(candidate)
        return reductions

    def shrink(self, rule: Rule | None = None, *, force: bool = False) -> Decision:
        """Decides ranks and makes the factors smaller, in the model and in the optimisers that are watched.

        Parameters are replaced by new ones: wrap a model in DistributedDataParallel anew, and make an optimiser anew that is not
        watched. Copies that follow the model (`AveragedModel`) have to be made anew as well, here and after `finish`: torch averages
        parameters of different ranks without a word. All processes of a distributed run take the decision of the first one.
        torch.compile traces the model once more.

        Args:
            rule: `Rounding` or `Selection`; left out, what suits the method.
            force: also where the learning rate is still near its peak.

        Raises:
            RuntimeError: a learning rate of a watched optimiser has not decayed, or the method is finished.
            ValueError: the rule speaks of layers that the method does not have.
        """
        self.run.check_held()
        if not force:
            check_rates(self.run.watched.peaks)
        rule = self.default_rule() if rule is None else rule
        self.run.record(self.spectra())
        reductions = agree(self.decide(rule))
        layers = []
        for name, reduction in reductions.items():
            weight = self.run.weights[name]
            before = weight.network
            apply(weight, reduction, self.run.watched.optimizers)
            layers.append(
                LayerDecision(
                    name,
                    dict(before.ranks),
                    dict(weight.network.ranks),
                    before.numel,
                    0 if reduction.is_removed else weight.network.numel,
                    reduction.error,
                    reduction.is_removed,
                )
            )
            if reduction.is_removed:
                self.run.removed.add(name)
            with torch.no_grad():
                self._follow(name, reduction)
        self.run.freeze_removed()
        decision = Decision(str(rule), self.run.steps, layers)
        if decision.removed:
            warn_removed(decision.removed)
        return decision

    def default_rule(self) -> Rule:
        """The rule that suits the method: rounding, which no basis of the factors misleads."""
        return Rounding()

    def report(self) -> RankReport:
        """Every rank's spectrum over time; `print` it."""
        if not self.run.is_released:
            self.run.measure(self._values)
        return RankReport(type(self).__name__, self.quantity, self.run.steps, self.run.layer_reports())

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, together with the state of the model and of the optimiser; plain values and tensors."""
        return {"run": self.run.state_dict(), **self._extra_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved state back into a method that was attached as before; then load the model's state, and make the optimiser.

        Factors get their saved ranks here, their values from the model's state.

        Raises:
            ValueError: the state is that of other layers or settings.
            RuntimeError: the method is finished.
        """
        self.run.check_held()
        settings = self._extra_state().get("settings")
        if state.get("settings") != settings:
            raise ValueError(
                f"the state is of a {state.get('settings')}, but this one is {settings}; to go on all settings must be the same: "
                "attach as before"
            )
        self.run.load_state_dict(state["run"])
        self._load_extra(state)
        self.run.freeze_removed()

    @abc.abstractmethod
    def _extra_state(self) -> dict[str, Any]:
        """Settings and tensors beyond the run's."""

    @abc.abstractmethod
    def _load_extra(self, state: Mapping[str, Any]) -> None:
        """Puts `_extra_state` back; the weights have their saved ranks."""
