"""Photographs: encoded bytes to pixels, DICOM, overlays, synthetic images."""
