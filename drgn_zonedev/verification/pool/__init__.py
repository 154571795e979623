# SPDX-License-Identifier: LGPL-2.1-or-later

"""Several processes that go through struct pages."""
