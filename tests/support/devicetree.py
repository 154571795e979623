# SPDX-License-Identifier: LGPL-2.1-or-later

"""Devices, buses and what devices manage, in memory of their own beside a stored dump."""

from __future__ import annotations

from drgn import FaultError, Program, offsetof, sizeof

_BASE, _SIZE = 0xFFFFC90000000000, 1 << 20


class DeviceTree:
    """
    A kernel's devices, without any at first. ``reads`` are the addresses that were read
    of its memory.
    """

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.reads: list[int] = []
        self._memory = bytearray(_SIZE)
        self._used = 0
        self._hidden: set[int] = set()
        prog.add_memory_segment(_BASE, _SIZE, self._read)
        self.kset, self._buses = self._kset("devices_kset"), self._kset("bus_kset")
        self._subsystems: dict[str, tuple[int, int]] = {}

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        self.reads.append(address)
        if any(address <= hidden < address + count for hidden in self._hidden):
            raise FaultError("hidden", address)
        return bytes(self._memory[offset : offset + count])

    def hide(self, address: int) -> None:
        """Have a byte fault."""
        self._hidden.add(address)

    def allocate(self, size: int, align: int = 8) -> int:
        """Get zeroed memory."""
        self._used = -(-self._used // align) * align + size
        assert self._used <= _SIZE
        return _BASE + self._used - size

    def poke(self, address: int, word: int) -> None:
        """Write a pointer."""
        self._memory[address - _BASE : address - _BASE + 8] = word.to_bytes(8, "little")

    def _peek(self, address: int) -> int:
        return int.from_bytes(self._memory[address - _BASE :][:8], "little")

    def _text(self, text: str) -> int:
        address = self.allocate(len(text) + 1)
        at = address - _BASE
        self._memory[at : at + len(text)] = text.encode()
        return address

    def _at(self, address: int, type_name: str, member: str) -> int:
        return address + offsetof(self.prog.type(f"struct {type_name}"), member)

    def _new(self, type_name: str, align: int = 8) -> int:
        return self.allocate(sizeof(self.prog.type(f"struct {type_name}")), align)

    def _head(self, address: int) -> None:
        self.poke(address, address)
        self.poke(address + 8, address)

    def _append(self, node: int, head: int) -> None:
        last = self._peek(head + 8)
        for address, word in ((node, head), (node + 8, last), (last, node), (head + 8, node)):
            self.poke(address, word)

    def _kset(self, variable: str) -> int:
        kset = self._new("kset")
        self._head(self._at(kset, "kset", "list"))
        word = kset.to_bytes(8, "little")
        where = self.prog[variable].address_
        assert where is not None
        self.prog.add_memory_segment(where, 8, lambda a, count, at, p: word[at : at + count])
        return kset

    def bus(self, name: str) -> None:
        """Register a bus."""
        bus, subsys = self._new("bus_type"), self._new("subsys_private")
        self.poke(self._at(bus, "bus_type", "name"), self._text(name))
        self.poke(self._at(subsys, "subsys_private", "bus"), bus)
        self.poke(self._at(subsys, "subsys_private", "subsys.kobj.name"), self._text(name))
        devices = self._at(subsys, "subsys_private", "klist_devices.k_list")
        self._head(devices)
        entry = self._at(subsys, "subsys_private", "subsys.kobj.entry")
        self._append(entry, self._at(self._buses, "kset", "list"))
        self._subsystems[name] = bus, devices

    def device(self, name: str, bus: str, parent: int = 0) -> int:
        """Register a device on a bus, below another one."""
        dev, private = self._new("device", 1024), self._new("device_private")
        bus_type, devices = self._subsystems[bus]
        self.poke(self._at(dev, "device", "kobj.name"), self._text(name))
        self.poke(self._at(dev, "device", "kobj.kset"), self.kset)
        self.poke(self._at(dev, "device", "bus"), bus_type)
        self.poke(self._at(dev, "device", "p"), private)
        self.poke(self._at(dev, "device", "parent"), parent)
        self.poke(self._at(private, "device_private", "device"), dev)
        self._head(self._at(private, "device_private", "klist_children.k_list"))
        self._head(self._at(dev, "device", "devres_head"))
        self._append(self._at(private, "device_private", "knode_bus.n_node"), devices)
        entry = self._at(dev, "device", "kobj.entry")
        self._append(entry, self._at(self.kset, "kset", "list"))
        return dev

    def managed_memory(self, dev: int, size: int) -> int:
        """``devm_kzalloc()``; returns the payload."""
        whole = self._at(0, "devres", "data") + size
        node = self.allocate(whole, 1 << (whole - 1).bit_length())
        self._add(dev, node, "devm_kmalloc_release", whole - self._at(0, "devres", "data"))
        return self._at(node, "devres", "data")

    def managed_pgmap(self, dev: int, pgmap: int) -> None:
        """``devm_add_action(dev, devm_memremap_pages_release, pgmap)``"""
        if self.prog.type("struct devres").has_member("release"):
            node = self._new("devres_action")
            action = self._at(node, "devres_action", "action")
            self.poke(self._at(node, "devres_node", "release"), self.symbol("devm_action_release"))
            self._append(self._at(node, "devres_node", "entry"), self._resources(dev))
        else:
            node = self.allocate(self._at(0, "devres", "data") + 16)
            action = self._at(node, "devres", "data")
            self._add(dev, node, "devm_action_release", 16)
        release = self.symbol("devm_memremap_pages_release")
        self.poke(self._at(action, "action_devres", "action"), release)
        self.poke(self._at(action, "action_devres", "data"), pgmap)

    def _resources(self, dev: int) -> int:
        return self._at(dev, "device", "devres_head")

    def _add(self, dev: int, node: int, release: str, size: int) -> None:
        containers = self.prog.type("struct devres").has_member("release")
        place = ("devres", "release") if containers else ("devres_node", "release")
        self.poke(self._at(node, *place), self.symbol(release))
        if self.prog.type("struct devres_node").has_member("size"):
            self.poke(self._at(node, "devres_node", "size"), size)
        self._append(self._at(node, "devres_node", "entry"), self._resources(dev))

    def symbol(self, name: str) -> int:
        """Get the address of a function."""
        address: int = self.prog.symbol(name).address
        return address
