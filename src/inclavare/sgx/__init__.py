"""SGX as the manual writes it: layouts, measurement, signatures. No I/O, no clock."""
