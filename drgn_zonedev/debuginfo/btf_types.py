# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Types of BTF
------------

Makes drgn's types of those of BTF. A struct's members are made on the first look at
them, as drgn does with DWARF: most of what a type reaches is never needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from drgn import (
    Object,
    Program,
    Qualifiers,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeKindSet,
    TypeMember,
    TypeParameter,
    sizeof,
)

from drgn_zonedev.debuginfo.btf import Btf, BtfKind, BtfMember, BtfType
from drgn_zonedev.debuginfo.damage import DebugInfoError

__all__ = ("BtfTypes", "has_size")

# What is made at once: pointers to pointers, arrays of arrays, typedefs of typedefs. The
# kernel's deepest one has some 15 levels.
_MAX_DEPTH = 64

# No struct or array of a kernel is as large.
_MAX_BYTES = 1 << 30

_INTEGER_BYTES = (1, 2, 4, 8, 16)
# drgn reads no others, and kernels have none.
_FLOAT_BYTES = (4, 8)

# BTF_INT_SIGNED, BTF_INT_BOOL
_SIGNED, _BOOL = 1, 4

_QUALIFIERS = {
    BtfKind.CONST: Qualifiers.CONST,
    BtfKind.VOLATILE: Qualifiers.VOLATILE,
    BtfKind.RESTRICT: Qualifiers.RESTRICT,
}

_KINDS = {
    TypeKind.STRUCT: (BtfKind.STRUCT,),
    TypeKind.UNION: (BtfKind.UNION,),
    TypeKind.ENUM: (BtfKind.ENUM, BtfKind.ENUM64),
    TypeKind.TYPEDEF: (BtfKind.TYPEDEF,),
    TypeKind.INT: (BtfKind.INT,),
    TypeKind.BOOL: (BtfKind.INT,),
    TypeKind.FLOAT: (BtfKind.FLOAT,),
}

_COMPOUND = (TypeKind.STRUCT, TypeKind.UNION)
_TAGGED = (*_COMPOUND, TypeKind.ENUM)

_ALIASES = (*_QUALIFIERS, BtfKind.TYPEDEF, BtfKind.TYPE_TAG)

# What an enumeration without a type of its own is compatible with, by its size.
_COMPATIBLE = {1: "char", 2: "short", 4: "int", 8: "long"}


@dataclass(frozen=True, eq=False, repr=False)
class BtfTypes:
    """
    The types of a program.

    :ivar leading: The first dimension of an array that has several, by the tag of the
        struct and the name of the member. BTF has their product only.
    :ivar outside: The types outside of arrays, if these are those of elements.
    """

    prog: Program
    btf: Btf
    leading: Mapping[tuple[str, str], int] = field(default_factory=dict)
    outside: BtfTypes | None = None
    _made: dict[int, Type] = field(default_factory=dict)

    def find(self, kinds: TypeKindSet, name: str) -> Type | None:
        """
        Find a type by its kind and name. Of several that share both, it is the first.

        :raises DebugInfoError: if it is damaged
        """
        for kind, ours in _KINDS.items():
            if kind not in kinds:
                continue
            for type_id in (i for our in ours for i in self.btf.find(our, name)):
                made = self.type(type_id)
                if made.kind == kind and (kind == TypeKind.TYPEDEF or made.is_complete()):
                    return made
        return None

    def element(self, t: Type) -> Type:
        """
        Get a type as the elements of arrays have it: without flexible arrays. drgn prints no
        array of structs that end with one, and BTF has struct zone end with one in Linux 5.10.

        :raises DebugInfoError: if it is damaged
        """
        name = t.tag if t.kind in _TAGGED else t.name if t.kind in _KINDS else None
        found = self._elements.find(TypeKindSet((t.kind,)), name) if name else None
        return found or t

    def type(self, type_id: int) -> Type:
        """
        Get the type of an ID.

        :raises DebugInfoError: if it is damaged
        """
        try:
            return self._type(type_id, 0)
        except (ValueError, TypeError, OverflowError) as e:
            raise DebugInfoError(f"BTF is damaged: type {type_id}: {e}") from e

    @cached_property
    def _elements(self) -> BtfTypes:
        return self if self.outside else BtfTypes(self.prog, self.btf, self.leading, self)

    def _type(self, type_id: int, depth: int) -> Type:
        if type_id not in self._made:
            if depth > _MAX_DEPTH:
                raise DebugInfoError(f"BTF is damaged: type {type_id} refers to itself")
            self._made[type_id] = self._make(self.btf.type(type_id), depth + 1)
        return self._made[type_id]

    def _make(self, t: BtfType, depth: int) -> Type:
        if t.kind in (BtfKind.STRUCT, BtfKind.UNION):
            return self._compound(t)
        if t.kind in _QUALIFIERS:
            referred = self._type(t.reference, depth)
            return referred.qualified(referred.qualifiers | _QUALIFIERS[t.kind])
        if t.kind in _MAKERS:
            return _MAKERS[t.kind](self, t, depth)
        raise DebugInfoError(f"BTF is damaged: a {t.kind.name} is used as a type")

    def _void(self, t: BtfType, depth: int) -> Type:
        return self.prog.void_type()

    def _int(self, t: BtfType, depth: int) -> Type:
        encoding = t.words[0] >> 24
        if t.reference not in _INTEGER_BYTES:
            raise DebugInfoError(f"BTF is damaged: integer {t.name} has {t.reference} bytes")
        if encoding & _BOOL:
            return self.prog.bool_type(t.name, t.reference)
        return self.prog.int_type(t.name, t.reference, bool(encoding & _SIGNED))

    def _float(self, t: BtfType, depth: int) -> Type:
        if t.reference not in _FLOAT_BYTES:
            raise DebugInfoError(f"BTF is damaged: float {t.name} has {t.reference} bytes")
        return self.prog.float_type(t.name, t.reference)

    def _pointer(self, t: BtfType, depth: int) -> Type:
        return self.prog.pointer_type((self.outside or self)._type(t.reference, depth))

    def _array(self, t: BtfType, depth: int) -> Type:
        element_id, _, length = t.words
        element = self._elements._type(element_id, depth)
        # That of void raises TypeError.
        size = sizeof(element)
        if not length and not self.outside:
            # Not [0], which BTF does not tell from it: the kernel's are flexible arrays.
            return self.prog.array_type(element)
        if length * size > _MAX_BYTES:
            raise DebugInfoError(f"BTF is damaged: array {t.id} has {length} elements")
        return self.prog.array_type(element, length)

    def _enum(self, t: BtfType, depth: int) -> Type:
        if not t.vlen:
            return self.prog.enum_type(t.name or None)
        enumerators = [TypeEnumerator(name, value) for name, value in self.btf.enumerators(t)]
        is_signed = any(enumerator.value < 0 for enumerator in enumerators)
        if t.reference not in _COMPATIBLE:
            raise DebugInfoError(f"BTF is damaged: enumeration {t.id} has {t.reference} bytes")
        name = f"{'' if is_signed else 'unsigned '}{_COMPATIBLE[t.reference]}"
        compatible = self.prog.int_type(name, t.reference, is_signed)
        return self.prog.enum_type(t.name or None, compatible, enumerators)

    def _forward(self, t: BtfType, depth: int) -> Type:
        if defined := self._defined(t):
            return self._type(defined[0], depth)
        make = self.prog.union_type if t.kind_flag else self.prog.struct_type
        return make(t.name)

    def _defined(self, t: BtfType) -> Sequence[int]:
        # BTF has a forward declaration where several definitions, or none, could be meant.
        found = self.btf.find(BtfKind.UNION if t.kind_flag else BtfKind.STRUCT, t.name)
        return found if len(found) == 1 else ()

    def _typedef(self, t: BtfType, depth: int) -> Type:
        return self.prog.typedef_type(t.name, self._type(t.reference, depth))

    def _type_tag(self, t: BtfType, depth: int) -> Type:
        # __percpu, __user, __rcu
        return self._type(t.reference, depth)

    def _function(self, t: BtfType, depth: int) -> Type:
        pairs = list(zip(t.words[::2], t.words[1::2]))
        is_variadic = bool(pairs) and pairs[-1] == (0, 0)
        parameters = [
            TypeParameter(self._later(type_id), self.btf.string(name) or None)
            for name, type_id in pairs[: len(pairs) - is_variadic]
        ]
        return self.prog.function_type(self._type(t.reference, depth), parameters, is_variadic)

    def _later(self, type_id: int) -> Callable[[], Type]:
        return lambda: self.type(type_id)

    def _compound(self, t: BtfType) -> Type:
        if t.reference > _MAX_BYTES:
            raise DebugInfoError(f"BTF is damaged: {t.name or t.id} has {t.reference} bytes")
        members = [self._member(t, member) for member in self.btf.members(t)]
        make = self.prog.union_type if t.kind == BtfKind.UNION else self.prog.struct_type
        return make(t.name or None, t.reference, members)

    def _member(self, parent: BtfType, member: BtfMember) -> TypeMember:
        if member.bit_offset + member.bit_size > 8 * parent.reference:
            raise DebugInfoError(_not_inside(parent, member))
        leading = self.leading.get((parent.name, member.name))

        def later() -> Type | Object:
            made = self._member_type(member, leading)
            self._require_inside(parent, member, made)
            return made

        return TypeMember(later, member.name or None, member.bit_offset)

    def _require_inside(self, parent: BtfType, member: BtfMember, made: Type | Object) -> None:
        if isinstance(made, Object):
            return
        size = 0 if _is_flexible(made) else sizeof(made)
        if member.bit_offset + 8 * size > 8 * parent.reference:
            raise DebugInfoError(_not_inside(parent, member))
        # Only what is as large may have what it is in within itself.
        if size == parent.reference and self._has_within(member.type_id, parent):
            raise DebugInfoError(f"BTF is damaged: {parent.name or parent.id} is within itself")

    def _has_within(self, type_id: int, wanted: BtfType) -> bool:
        seen, left = {0}, [type_id]
        while left:
            t = self.btf.type(left.pop())
            if t.id == wanted.id:
                return True
            if t.id in seen or t.kind == BtfKind.PTR:
                continue
            seen.add(t.id)
            if t.kind in (BtfKind.STRUCT, BtfKind.UNION):
                if t.reference == wanted.reference:
                    left += [inner.type_id for inner in self.btf.members(t)]
            elif t.kind == BtfKind.ARRAY:
                left.append(t.words[0])
            elif t.kind in _ALIASES:
                left.append(t.reference)
            elif t.kind == BtfKind.FWD:
                left += self._defined(t)
        return False

    def _member_type(self, member: BtfMember, leading: int | None) -> Type | Object:
        made = self.type(member.type_id)
        if not member.name and made.unaliased_kind() not in _COMPOUND:
            raise DebugInfoError("BTF is damaged: a member that is not a struct has no name")
        bit_size = member.bit_size or self._narrow(member.type_id)
        if bit_size:
            try:
                return Object(self.prog, made, bit_field_size=bit_size)
            except (ValueError, TypeError) as e:
                raise DebugInfoError(f"BTF is damaged: bit field {member.name}: {e}") from e
        if not has_size(made):
            raise DebugInfoError(f"BTF is damaged: {member.name} has no size")
        if member.bit_offset % 8:
            raise DebugInfoError(f"BTF is damaged: {member.name} begins within a byte")
        if leading and made.kind == TypeKind.ARRAY and made.length and not made.length % leading:
            inner = self.prog.array_type(made.type, made.length // leading)
            return self.prog.array_type(inner, leading)
        return made

    def _narrow(self, type_id: int) -> int:
        # Before Linux kernel commit 9d5f9f701b18 ("bpf: btf: fix struct/union/fwd types
        # with kind_flag") (in v5.0), and from old pahole, the width of a bit field is
        # that of its integer type.
        t = self.btf.type(type_id)
        if t.kind != BtfKind.INT:
            return 0
        bits = t.words[0] & 0xFF
        return bits if bits != 8 * t.reference else 0


def _not_inside(parent: BtfType, member: BtfMember) -> str:
    return f"BTF is damaged: {parent.name or parent.id}.{member.name} is not inside"


def has_size(t: Type) -> bool:
    """
    Return whether an object may have a type: one without a size has no value, either. A flexible
    array may be a variable, or the last member.
    """
    while t.kind == TypeKind.TYPEDEF:
        t = t.type
    if t.kind == TypeKind.ARRAY:
        return has_size(t.type) and not _is_flexible(t.type)
    return t.kind not in (TypeKind.FUNCTION, TypeKind.VOID) and bool(t.is_complete())


def _is_flexible(t: Type) -> bool:
    while t.kind == TypeKind.TYPEDEF:
        t = t.type
    return t.kind == TypeKind.ARRAY and t.length is None


_MAKERS = {
    BtfKind.VOID: BtfTypes._void,
    BtfKind.INT: BtfTypes._int,
    BtfKind.FLOAT: BtfTypes._float,
    BtfKind.PTR: BtfTypes._pointer,
    BtfKind.ARRAY: BtfTypes._array,
    BtfKind.ENUM: BtfTypes._enum,
    BtfKind.ENUM64: BtfTypes._enum,
    BtfKind.FWD: BtfTypes._forward,
    BtfKind.TYPEDEF: BtfTypes._typedef,
    BtfKind.TYPE_TAG: BtfTypes._type_tag,
    BtfKind.FUNC_PROTO: BtfTypes._function,
}
