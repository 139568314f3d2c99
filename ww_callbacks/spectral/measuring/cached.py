"""A cached attribute, computed at its first use without a lock.

``functools.cached_property`` holds one lock per attribute of the *class* in Python before 3.12, so only one thread at a
time could decompose a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class cached_attribute(Generic[Value]):  # reads like `property`
    """Decorator: caches the method's value in the instance's ``__dict__`` under the method's name.

    Two threads that read it at the same time may both compute it.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> cached_attribute[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> Value | cached_attribute[Value]:
        if instance is None:
            return self
        # Without __set__ here, Python finds the value in __dict__ from now on and does not call this again.
        value = instance.__dict__[self.function.__name__] = self.function(instance)
        return value
