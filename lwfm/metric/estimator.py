"""The base of every system: fit, transform, predict, save and load, by scikit-learn's conventions."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.exceptions import NotFittedError

from lwfm._common.devices import choose_device
from lwfm._common.progress import progress
from lwfm._common.ranges import check_counts, check_seed
from lwfm._common.tensor_files import (
    holds_description,
    read_tensor_file,
    tensors_under,
    write_tensor_file,
)
from lwfm.errors import UserError
from lwfm.metric.decisions import NeighborVote
from lwfm.metric.encoders import Ensemble
from lwfm.metric.module import MetricModule, embed, seeded, train

if TYPE_CHECKING:
    import os

    import numpy.typing as npt
    from torch import Tensor, nn

    from lwfm.metric.decisions import Weights
    from lwfm.metric.module import Indices

_METADATA_KEY = "lwfm_metric"
_ENCODER = "encoder."


class MetricEstimator(TransformerMixin, ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]  # no types
    """Learned embedding, and a decision about what is embedded: the base of every system.

    A system's constructor keeps its arguments under their names (scikit-learn's ``clone``, searches and
    pipelines need that); it has at least `seed` and `accelerator`, and may have `networks`. It defines the
    abstract methods and, if need be, :meth:`_inputs` and :meth:`_references`. Most systems decide by the
    votes of neighbors: :class:`NeighborEstimator`.

    Attributes
    ----------
    classes_ : ndarray
        Sorted labels.
    encoder_ : nn.Module
        Inputs [B, ...] to embeddings.
    decision_ : object
        What the system decides by; holds the embeddings of the training rows that it needs.
    """

    system: ClassVar[str]
    """Name of the system, in files and on the command line."""
    networks: int = 1
    """Encoders that are trained one after the other from different weights and batches, and then joined."""
    seed: int
    accelerator: Any
    decision_: Any

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train the encoder, and keep the embeddings of the training rows.

        Parameters
        ----------
        X : array or tensor
            [N, ...] inputs.
        y : array
            [N] labels of at least two classes.
        groups : array, optional
            [N], such as the patient of each row, over which batches are balanced.

        Raises
        ------
        UserError
            For inputs, labels and groups that do not fit each other, before any work.
        """
        self._check_parameters()
        device = choose_device(self.accelerator)
        inputs, labels = self._inputs(X), np.asarray(y)
        grouped = np.zeros(len(inputs), dtype=np.int64) if groups is None else np.asarray(groups)
        self._check_labels(labels, len(inputs))
        check_lengths(len(inputs), groups=grouped)
        self.classes_, codes = self._coded(labels)
        self.shape_ = tuple(inputs.shape[1:])
        with seeded(self.seed) as random:
            encoders = []
            for _ in progress(range(self.networks), "networks", "network"):
                encoders.append(self._encoder(self.shape_))
                module = self._module(encoders[-1], len(self.classes_))
                train(module, inputs, torch.as_tensor(codes), self._batches(codes, grouped, random), device)
            kept = self._references(codes, grouped, random)
        self.encoder_ = self._joined(encoders).eval()
        self._decide_by(embed(self.encoder_, inputs[kept], device=device), codes[kept])
        return self

    def _check_labels(self, labels: npt.NDArray[Any], rows: int) -> None:
        """Raise UserError unless there is one label for each of the rows."""
        check_lengths(rows, labels=labels)

    def _coded(self, labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Indices]:
        """Return the sorted classes, and the number [N] of the class of each label."""
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise UserError(f"at least two classes are needed, there is only {classes.tolist()}")
        return classes, codes

    @abstractmethod
    def _decide_by(self, references: npt.NDArray[np.float32], codes: Indices) -> None:
        """Set ``decision_`` from the embeddings [R, dim] and codes [R] of :meth:`_references`."""

    def _deciding(self) -> tuple[npt.NDArray[np.float32], Indices]:
        """Return the embeddings and codes that :meth:`_decide_by` got, or others that replaced them."""
        return self.decision_.references, self.decision_.codes

    def _inputs(self, X: Any) -> Tensor:
        """Return the rows as a float32 tensor; UserError unless they are finite numbers."""
        inputs = torch.as_tensor(np.asarray(X) if not isinstance(X, torch.Tensor) else X)
        if inputs.ndim < 2 or len(inputs) == 0:
            raise UserError(f"inputs must be an array [N, ...] of at least one row, not {list(inputs.shape)}")
        inputs = inputs.float()
        if not torch.isfinite(inputs).all():
            raise UserError("the inputs hold NaN or infinite values")
        return inputs

    def _check_parameters(self) -> None:
        """Raise UserError for a parameter of a wrong type, or out of its range."""
        check_seed(self.seed)
        check_counts(networks=self.networks)

    @abstractmethod
    def _encoder(self, shape: tuple[int, ...]) -> nn.Module:
        """Build an encoder of rows of a shape, to be trained."""

    def _joined(self, encoders: list[nn.Module]) -> nn.Module:
        """Build what embeds rows from the encoders that are trained, one or more."""
        return encoders[0] if len(encoders) == 1 else Ensemble(encoders)

    @abstractmethod
    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        """Build the module that trains the encoder."""

    @abstractmethod
    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        """Draw the rows [steps, B] of all training steps."""

    def _references(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        """Choose the training rows that the decision needs: here all, in order."""
        del groups, random
        return np.arange(len(codes))

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Compute the embeddings [N, dim] of inputs [N, ...]."""
        self._check_fitted()
        inputs = self._inputs(X)
        if tuple(inputs.shape[1:]) != self.shape_:
            raise UserError(f"rows have shape {list(inputs.shape[1:])}, fitted were {list(self.shape_)}")
        return embed(self.encoder_, inputs, device=choose_device(self.accelerator))

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the share of the vote [N, classes] for each of `classes_`."""
        shares: npt.NDArray[np.float64] = self.decision_.probabilities(self.transform(X))
        return shares

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the label [N] with most votes; of equal ones the first of `classes_`."""
        shares = self.predict_proba(X)
        chosen: npt.NDArray[Any] = self.classes_[shares.argmax(1)]
        return chosen

    def _check_fitted(self) -> None:
        if not hasattr(self, "encoder_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted: call fit first, or load")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted system as one .safetensors file, replacing an existing one.

        Raises
        ------
        UserError
            When the disk refuses, or a parameter is an object that JSON cannot hold.
        """
        self._check_fitted()
        description = {
            "system": self.system,
            "parameters": self._plain_parameters(),
            "classes": self.classes_.tolist(),
            "shape": list(self.shape_),
            **self._described(),
        }
        tensors = {f"{_ENCODER}{name}": tensor for name, tensor in self.encoder_.state_dict().items()}
        references, codes = self._deciding()
        tensors["references"], tensors["codes"] = torch.as_tensor(references), torch.as_tensor(codes)
        write_tensor_file(Path(path), {**tensors, **self._tensors()}, description, key=_METADATA_KEY)

    def _plain_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self.get_params(deep=False)
        for name, value in parameters.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise UserError(f"the parameter {name} = {value!r} cannot be written to a file") from error
        return parameters

    def _described(self) -> dict[str, Any]:
        """Return further JSON values of the fitted system."""
        return {}

    def _tensors(self) -> dict[str, Tensor]:
        """Return further tensors of the fitted system."""
        return {}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Set what :meth:`_described` and :meth:`_tensors` returned."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a system that :meth:`save` wrote.

        Raises
        ------
        UserError
            When there is no such file, or it is damaged or holds another system.
        """
        file = Path(path)
        if not file.is_file():
            raise UserError(f"there is no model {file}: lwfm metric fit writes one")
        description, tensors = read_tensor_file(file, key=_METADATA_KEY, what="system of lwfm.metric")
        if description.get("system") != cls.system:
            raise UserError(f"{file} holds the system {description.get('system')}, not {cls.system}")
        try:
            estimator = cls(**description["parameters"])
            estimator._check_parameters()
            estimator.classes_ = np.asarray(description["classes"])
            estimator.shape_ = tuple(description["shape"])
            estimator._restore(description, tensors)
            encoders = [estimator._encoder(estimator.shape_) for _ in range(estimator.networks)]
            encoder = estimator._joined(encoders)
            encoder.load_state_dict(tensors_under(_ENCODER, tensors))
            estimator.encoder_ = encoder.eval()
            estimator._decide_by(tensors["references"].numpy(), tensors["codes"].numpy())
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{file} is not a whole model: {error}") from error
        return estimator


class NeighborEstimator(MetricEstimator):
    """A system whose nearest training rows vote; it defines :meth:`_vote` too.

    Attributes
    ----------
    decision_ : NeighborVote
        Holds the embeddings and classes of the rows that vote.
    """

    decision_: NeighborVote

    @abstractmethod
    def _vote(self) -> tuple[int, Weights]:
        """Return the number of neighbors that vote, and the weights of their votes."""

    def _decide_by(self, references: npt.NDArray[np.float32], codes: Indices) -> None:
        self.decision_ = NeighborVote(*self._vote()).fit(references, codes, len(self.classes_))


def check_lengths(rows: int, **values: npt.NDArray[Any]) -> None:
    """Raise UserError naming the first of the arrays that is not one value for each of the rows."""
    for name, array in values.items():
        if array.shape != (rows,):
            raise UserError(f"{rows} rows need as many {name}, not {list(array.shape)}")


def saved_system(path: Path) -> str:
    """Return the name of the system in a file; UserError where there is none."""
    if not path.is_file():
        raise UserError(f"there is no model {path}: lwfm metric fit writes one")
    description, _ = read_tensor_file(path, key=_METADATA_KEY, what="system of lwfm.metric")
    return str(description.get("system"))


def is_model(path: Path) -> bool:
    """Return whether a file holds a fitted system."""
    return holds_description(path, key=_METADATA_KEY)
