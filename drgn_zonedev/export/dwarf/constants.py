# SPDX-License-Identifier: LGPL-2.1-or-later

"""The numbers of DWARF that an export needs, named as in the standard without ``DW_``."""

from __future__ import annotations

TAG_array_type = 0x01
TAG_class_type = 0x02
TAG_enumeration_type = 0x04
TAG_formal_parameter = 0x05
TAG_member = 0x0D
TAG_pointer_type = 0x0F
TAG_compile_unit = 0x11
TAG_structure_type = 0x13
TAG_subroutine_type = 0x15
TAG_typedef = 0x16
TAG_union_type = 0x17
TAG_unspecified_parameters = 0x18
TAG_subrange_type = 0x21
TAG_base_type = 0x24
TAG_const_type = 0x26
TAG_enumerator = 0x28
TAG_subprogram = 0x2E
TAG_variable = 0x34
TAG_volatile_type = 0x35
TAG_restrict_type = 0x37
TAG_atomic_type = 0x47

AT_location = 0x02
AT_name = 0x03
AT_byte_size = 0x0B
AT_bit_size = 0x0D
AT_low_pc = 0x11
AT_language = 0x13
AT_const_value = 0x1C
AT_producer = 0x25
AT_prototyped = 0x27
AT_count = 0x37
AT_data_member_location = 0x38
AT_declaration = 0x3C
AT_encoding = 0x3E
AT_type = 0x49
AT_data_bit_offset = 0x6B

FORM_addr = 0x01
FORM_sdata = 0x0D
FORM_strp = 0x0E
FORM_udata = 0x0F
FORM_ref4 = 0x13
FORM_exprloc = 0x18
FORM_flag_present = 0x19

OP_addr = 0x03

ATE_boolean = 0x02
ATE_float = 0x04
ATE_signed = 0x05
ATE_signed_char = 0x06
ATE_unsigned = 0x07
ATE_unsigned_char = 0x08

LANG_C11 = 0x1D
