# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Debugging information entries
-----------------------------

Copies the types that an export keeps from a program's debugging information into a tree that
:mod:`drgn_zonedev.export.dwarf.encode` can write.

A type that is only pointed to stays a declaration, unless its name is asked for: otherwise ``struct
page`` alone would pull in half of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Union

from drgn import Qualifiers, Type, TypeKind

from drgn_zonedev.export.dwarf import constants as dw

__all__ = ("Attribute", "Die", "FormValue", "Tree")

FormValue = Union[int, str, bytes, "Die"]
Attribute = tuple[int, int, FormValue]

_TAGS = {
    TypeKind.STRUCT: dw.TAG_structure_type,
    TypeKind.UNION: dw.TAG_union_type,
    TypeKind.CLASS: dw.TAG_class_type,
    TypeKind.ENUM: dw.TAG_enumeration_type,
}
_QUALIFIERS = (
    (Qualifiers.CONST, dw.TAG_const_type),
    (Qualifiers.VOLATILE, dw.TAG_volatile_type),
    (Qualifiers.RESTRICT, dw.TAG_restrict_type),
    (Qualifiers.ATOMIC, dw.TAG_atomic_type),
)


@dataclass(eq=False)
class Die:
    """An entry; attributes are (name, form, value)."""

    tag: int
    attributes: list[Attribute] = field(default_factory=list)
    children: list[Die] = field(default_factory=list)

    def add(self, name: int, form: int, value: FormValue) -> None:
        """Add an attribute."""
        self.attributes.append((name, form, value))


class Tree:
    """Copies types. Each named type becomes one entry, complete if its name is asked for."""

    def __init__(self, complete: Iterable[str]) -> None:
        self.top: list[Die] = []
        self._complete = frozenset(complete)
        self._known: dict[object, Die] = {}
        self._filled: set[int] = set()

    def add_type(self, type_: Type) -> Die | None:
        """Copy a type, completely if the program has a complete one. ``None`` is ``void``."""
        return self._use(type_, by_value=True)

    def add_variable(self, name: str, type_: Type, address: int) -> None:
        """Add a variable at its address in the file, which is not relocated."""
        die = Die(dw.TAG_variable, [(dw.AT_name, dw.FORM_strp, name)])
        self._set_type(die, type_, by_value=True)
        die.add(dw.AT_location, dw.FORM_exprloc, address)
        self.top.append(die)

    def add_function(self, name: str, type_: Type, address: int | None) -> None:
        """Add a function."""
        die = Die(dw.TAG_subprogram, [(dw.AT_name, dw.FORM_strp, name)])
        if address is not None:
            die.add(dw.AT_low_pc, dw.FORM_addr, address)
        self._describe_function(die, type_)
        self.top.append(die)

    def _new(self, tag: int, key: object = None, *attributes: Attribute) -> Die:
        die = Die(tag, list(attributes))
        self.top.append(die)
        if key is not None:
            self._known[key] = die
        return die

    def _set_type(self, die: Die, type_: Type, *, by_value: bool) -> None:
        target = self._use(type_, by_value=by_value)
        if target is not None:
            die.add(dw.AT_type, dw.FORM_ref4, target)

    def _use(self, type_: Type, *, by_value: bool) -> Die | None:
        for qualifier, tag in _QUALIFIERS:
            if type_.qualifiers & qualifier:
                inner = self._use(type_.qualified(type_.qualifiers & ~qualifier), by_value=by_value)
                return self._wrapped(tag, inner)
        if type_.kind is TypeKind.VOID:
            return None
        if type_.kind in _TAGS:
            return self._tagged(type_, by_value=by_value)
        if type_.kind is TypeKind.TYPEDEF:
            return self._typedef(type_, by_value=by_value)
        if type_.kind is TypeKind.POINTER:
            return self._pointer(type_)
        if type_.kind is TypeKind.ARRAY:
            return self._array(type_, by_value=by_value)
        if type_.kind is TypeKind.FUNCTION:
            die = self._new(dw.TAG_subroutine_type)
            self._describe_function(die, type_)
            return die
        return self._base(type_)

    def _wrapped(self, tag: int, inner: Die | None, size: int | None = None) -> Die:
        key = (tag, inner, size)
        if key in self._known:
            return self._known[key]
        die = self._new(tag, key)
        if size is not None:
            die.add(dw.AT_byte_size, dw.FORM_udata, size)
        if inner is not None:
            die.add(dw.AT_type, dw.FORM_ref4, inner)
        return die

    def _base(self, type_: Type) -> Die:
        key = (type_.kind, type_.name, type_.size)
        if key in self._known:
            return self._known[key]
        return self._new(
            dw.TAG_base_type,
            key,
            (dw.AT_name, dw.FORM_strp, type_.name),
            (dw.AT_byte_size, dw.FORM_udata, type_.size),
            (dw.AT_encoding, dw.FORM_udata, _encoding(type_)),
        )

    def _typedef(self, type_: Type, *, by_value: bool) -> Die:
        key = (TypeKind.TYPEDEF, type_.name)
        if key not in self._known:
            die = self._new(dw.TAG_typedef, key, (dw.AT_name, dw.FORM_strp, type_.name))
            self._set_type(die, type_.type, by_value=by_value)
        elif by_value:
            # So far, it may be known only from a pointer.
            self._use(type_.type, by_value=True)
        return self._known[key]

    def _pointer(self, type_: Type) -> Die:
        target = type_.type
        return self._wrapped(
            dw.TAG_pointer_type, self._use(target, by_value=False), size=type_.size
        )

    def _array(self, type_: Type, *, by_value: bool) -> Die:
        element = self._use(type_.type, by_value=by_value)
        key = (TypeKind.ARRAY, element, type_.length)
        if key in self._known:
            return self._known[key]
        die = self._new(dw.TAG_array_type, key)
        if element is not None:
            die.add(dw.AT_type, dw.FORM_ref4, element)
        subrange = Die(dw.TAG_subrange_type)
        if type_.length is not None:
            subrange.add(dw.AT_count, dw.FORM_udata, type_.length)
        die.children.append(subrange)
        return die

    def _describe_function(self, die: Die, type_: Type) -> None:
        self._set_type(die, type_.type, by_value=False)
        for parameter in type_.parameters:
            child = Die(dw.TAG_formal_parameter)
            self._set_type(child, parameter.type, by_value=False)
            die.children.append(child)
        if type_.is_variadic:
            die.children.append(Die(dw.TAG_unspecified_parameters))
        die.add(dw.AT_prototyped, dw.FORM_flag_present, 1)

    def _tagged(self, type_: Type, *, by_value: bool) -> Die:
        if type_.tag is None:
            # An unnamed type is used in only one place, which has a name or is known already.
            die = self._new(_TAGS[type_.kind])
            self._fill(die, type_)
            return die
        key = (type_.kind, type_.tag)
        die = self._known.get(key) or self._new(_TAGS[type_.kind], key)
        if not die.attributes:
            die.attributes += [
                (dw.AT_name, dw.FORM_strp, type_.tag),
                (dw.AT_declaration, dw.FORM_flag_present, 1),
            ]
        wanted = by_value or type_.tag in self._complete or type_.kind is TypeKind.ENUM
        if wanted and type_.is_complete() and id(die) not in self._filled:
            die.attributes.pop()
            self._fill(die, type_)
        return die

    def _fill(self, die: Die, type_: Type) -> None:
        self._filled.add(id(die))
        if type_.kind is TypeKind.ENUM:
            self._fill_enum(die, type_)
            return
        if not type_.is_complete():
            die.add(dw.AT_declaration, dw.FORM_flag_present, 1)
            return
        die.add(dw.AT_byte_size, dw.FORM_udata, type_.size)
        for member in type_.members or ():
            child = Die(dw.TAG_member)
            if member.name is not None:
                child.add(dw.AT_name, dw.FORM_strp, member.name)
            if member.bit_field_size is None:
                child.add(dw.AT_data_member_location, dw.FORM_udata, member.bit_offset // 8)
            else:
                child.add(dw.AT_bit_size, dw.FORM_udata, member.bit_field_size)
                child.add(dw.AT_data_bit_offset, dw.FORM_udata, member.bit_offset)
            self._set_type(child, member.type, by_value=True)
            die.children.append(child)

    def _fill_enum(self, die: Die, type_: Type) -> None:
        if type_.type is not None:
            die.add(dw.AT_byte_size, dw.FORM_udata, type_.type.size)
            self._set_type(die, type_.type, by_value=True)
        for enumerator in type_.enumerators or ():
            form = dw.FORM_sdata if enumerator.value < 0 else dw.FORM_udata
            name = (dw.AT_name, dw.FORM_strp, enumerator.name)
            value = (dw.AT_const_value, form, enumerator.value)
            die.children.append(Die(dw.TAG_enumerator, [name, value]))


def _encoding(type_: Type) -> int:
    if type_.kind is TypeKind.BOOL:
        return dw.ATE_boolean
    if type_.kind is TypeKind.FLOAT:
        return dw.ATE_float
    if type_.name in ("char", "signed char", "unsigned char"):
        return dw.ATE_signed_char if type_.is_signed else dw.ATE_unsigned_char
    return dw.ATE_signed if type_.is_signed else dw.ATE_unsigned
