"""The exactness table: every sampler and guidance against exact posteriors."""

from pgm_jax.verify.cases import Case as Case, all_cases as all_cases, default_cases as default_cases
from pgm_jax.verify.finite_d import covariance_errors as covariance_errors
from pgm_jax.verify.moments import gaussian_moments as gaussian_moments, moment_errors as moment_errors
from pgm_jax.verify.peers import (
    PEERS as PEERS,
    Peer as Peer,
    monte_carlo_errors as monte_carlo_errors,
    peer_module as peer_module,
    run_peer as run_peer,
    verify_peers as verify_peers,
)
from pgm_jax.verify.problems import Problem as Problem, problem as problem
from pgm_jax.verify.table import run_case as run_case, verify as verify
