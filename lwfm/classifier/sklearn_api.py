"""scikit-learn's estimator interface, without depending on scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any, Self

from lwfm.errors import UserError


class Estimator:
    """Estimator whose parameters are the constructor's arguments, kept under the same names.

    scikit-learn's ``clone``, ``cross_val_score`` and searches need no more.
    """

    _estimator_type = "classifier"

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 (no parameter is an estimator)
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters; those of fitting take effect at the next :meth:`fit`.

        Raises
        ------
        UserError
            (a ValueError) For a name that is no parameter, before anything is set.
        """
        names = self._parameter_names()
        if unknown := [name for name in parameters if name not in names]:
            raise UserError(f"{type(self).__name__} has no parameter {unknown[0]!r}: {', '.join(names)}")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def _description(self) -> list[str]:
        """Return what :func:`repr` shows beside the parameters."""
        return []

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if isinstance(value, (str, int, float, bool)) and value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(changed + self._description())})"

    def __sklearn_tags__(self) -> Any:  # only scikit-learn calls this
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True, string=True),
        )
