# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Types and symbols of a kernel without its vmlinux: types from BTF, symbols from kallsyms.

It imports nothing else of this package, so whoever has drgn can use it::

    prog.set_core_dump("vmcore")
    register_builtin_finders(prog)
    prog["init_task"].comm
"""
