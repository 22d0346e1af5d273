"""Emission tomography: PET by sinogram and by list of events, and SPECT."""
