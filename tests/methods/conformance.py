"""What the conformance tests try: every registered method, its variants and its switches."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.contract import CHECKS, Check, run_check, small_config
from methods.encoders import EncoderConfig
from methods.registry import METHODS

SWITCHES: dict[str, list[dict[str, Any]]] = {
    "robult": [
        {"fc": "plain", "full_input": "s", "combine": "sum", "late_fusion": "prob_mean", "sup_reduction": "sum"},
        {"combine": "mean", "rbf": "phi_fixed", "tau": 0.5, "include_self": False, "rec": "cos"},
        {"rbf": "cos_fixed", "rec_trains_r": False, "pu_reduction": "anchor_sum", "ignore_empty_multilabel": True},
        {"grad_routing": "none", "pu_reduction": "pair_mean"},
    ],
    "gmc": [
        {"joints_as_negatives": True, "renorm_mean": True, "fc": "plain"},
        {"projector": "lstm", "mult_width": 8, "mult_heads": 2, "mult_depth": 2, "mult_text": "audio"},
    ],
    "actionmae": [
        {"mae_detach_target": True, "mae_width": 24, "memory_tokens": 4, "normalise_target": False},
        {"decode_whole": True, "fc": "plain", "depth": 1},
    ],
    "prompt_trans": [
        {"freeze_trunk": True, "prompt_length": 8, "depth": 1},
        {"prompt_type": "attention", "prompt_init": "rows", "prompt_length": 2, "max_tokens": 4},
    ],
    "prompt_vilt": [
        {"prompt_init": "rows", "absent_image": "zeros", "prompted_layers": 2},
        {"prompt_type": "attention", "simulate_missing": False},
    ],
    "raml": [
        {"shared_predictor": False, "mask_unimodal": True, "l1_on_unlabelled": True},
        {"shared_predictor": False, "unimodal_loss": False, "weighting": "identical", "l1_reduction": "sum"},
        {"full_modality_training": True, "weighting": "fixed", "width": 24, "fc": "plain"},
        {"max_patterns": 6},
    ],
    "tmc": [
        {"view_network": "linear", "activation": "relu", "mask_aware": False},
        {"mask_aware": False, "patterns": "none", "anneal_share": 1.0},
        {"projector": "lstm", "max_patterns": 5},
    ],
    "etmc": [
        {"pseudo_view": "complete", "view_network": "linear"},
        {"mask_aware": False, "patterns": "none", "activation": "relu"},
    ],
    "md": [
        {"view_network": "linear", "hidden": 24, "dropout": 0.0, "gate_on_unlabelled": False},
        {"mask_aware": False, "detach_tcp": True, "fc": "plain", "max_patterns": 5},
    ],
    "concat": [
        {"incomplete_samples": True, "head_width": 24, "head_dropout": 0.0, "fc": "plain"},
    ],
    "augmentation": [
        {"full_pattern": False, "max_patterns": 6, "projector": "lstm"},
    ],
    "cra": [
        {"missing_as": "zero_input", "restored": "missing", "patterns": "sample", "code_width": 8},
        {"reduction": "half_sum", "whole_loss": False, "depth": 1, "lambda_rec": 0.1},
        {"restored": "missing", "full_pattern": False, "lambda_rec": 0.0, "schedule": "greedy", "code_width": 8},
    ],
    "mmin": [
        {"share_cycle": True, "patterns": "sample", "full_pattern": False, "depth": 1},
        {"lambda_imagine": 0.0, "lambda_cycle": 0.0, "code_width": 8, "code_dropout": 0.0},
    ],
    "tate": [
        {"patterns": "sample", "heads": 2, "dropout": 0.0, "teacher_share": 0.25},
        {"lambda_decoder": 0.0, "lambda_encoder": 0.0, "lambda_tag": 0.0, "full_pattern": False},
    ],
    "mvae": [
        {"subsets": "none", "scale": "summed", "likelihood": "laplace", "cross_reconstruction": True, "anneal": 0.0},
        {"classifier": "label", "subsets": "published", "fc": "plain", "random_subsets": 2},
        {"max_patterns": 6, "head_dropout": 0.0, "projector": "lstm"},
    ],
    "mmvae": [
        {"objective": "elbo_weighted", "scale": "summed", "draws": 3, "learn_prior": True, "fc": "plain"},
        {"objective": "iwae", "looser": False, "draws": 3, "learn_prior": True, "inference": "latent_mean"},
        {"objective": "dreg", "looser": False, "draws": 2, "likelihood": "laplace", "late_fusion": "logit_mean"},
    ],
    "dicmor": [
        {"multilabel_prior": "sum", "flow_steps": 2, "rebuild_blocks": 1, "max_patterns": 6},
        {"flow_steps": 3, "latent": 7, "unlabelled_prior": "none", "lambda_rebuild": 0.0},
    ],
    "sem": [
        {"contrast": "pscl", "start": "noisy", "patterns": "none", "periods": 1, "fc": "plain"},
        {"contrast": "rince", "start": "masked", "clusters": 2, "tau": 0.7, "max_patterns": 6, "periods": 1},
    ],
    "unimodal": [
        {"unimodal_full": "late_mean", "late_fusion": "prob_mean"},
        {"projector": "textcnn", "joint": "concat", "fc": "plain"},
        {"projector": "fc", "joint": "concat"},
    ],
}

FITTED_VARIANTS = {"robult-no_sup", "robult-no_unique_branches", "robult-plus_gmc", "prompt_trans-attention_level"}
"""Variants that answer or learn in another way; for the others "fits 32 samples" would try the same again."""


PATIENT = {"actionmae", "cra", "dicmor", "mmin", "prompt_trans", "sem", "tate"}
"""Methods that take several stages, or many steps, to fit anything."""


def subjects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Identifier, method and Config values of everything that is tried."""
    for name in METHODS.builtin:
        yield name, name, {}
        # Depth is tried by the defaults; variants and switches differ elsewhere.
        shallow = {"mult_depth": 1} if issubclass(METHODS.get(name).Config, EncoderConfig) else {}
        for variant, values in METHODS.get(name).variants.items():
            # The probe's default strength keeps it from fitting 32 samples, as it should; the rule wants it able to.
            weaker = {"probe_l2": 0.1} if variant == "no_sup" else {}
            yield f"{name}-{variant}", name, shallow | dict(values) | weaker
        for values in SWITCHES.get(name, []):
            yield f"{name}-{'-'.join(map(str, values.values()))}", name, shallow | values


TELLING = {
    "never lets hidden modalities matter",
    "moves every parameter it does not declare untrained",
    "trains in a stack as it trains alone",
}
"""The rules that a switch is most likely to break: the others are tried on it by `make test-all`."""


def tries(*, defaults: bool) -> Iterator[Any]:
    """Parameters of `keeps`: methods as they are by default, or all their variants and switches."""
    for identifier, name, values in subjects():
        if defaults == bool(values):
            continue
        for check in CHECKS.values():
            fits = check.name == "fits 32 samples"
            repeats = check.scope == "class" or (fits and identifier not in FITTED_VARIANTS)
            if values and repeats:
                continue
            slow = check.name not in TELLING if values else fits and name in PATIENT
            yield pytest.param(
                name, values, check, id=f"{identifier}: {check.name}", marks=[pytest.mark.slow] if slow else []
            )


def keeps(name: str, values: dict[str, Any], check: Check) -> None:
    result = run_check(check, METHODS.get(name), small_config(METHODS.get(name), values))
    assert result.ok, result.message
