"""The variants differ from the method by what they say, and by nothing else."""

import numpy as np
import pytest
import torch
from samples import numbered_transitions, random_batch, random_noise, small_model, tiny_config

from mbta_helpers.errors import UserError
from mbta_helpers.objectives import one_pass_loss
from mbta_helpers.training import Trainer
from mbta_helpers.variants import (
    AbsoluteTrainer,
    AbsoluteWorldModel,
    JointTrainer,
    joint_loss,
    predict_absolute,
)

PARTS = ("posterior", "policy", "world_model", "prior")


def slopes(model, loss):
    """The gradient of a loss in each network, as one vector a network."""
    model.zero_grad()
    loss.backward()
    return {
        part: torch.cat(
            [
                torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten().clone()
                for p in getattr(model, part).parameters()
            ]
        )
        for part in PARTS
    }


@pytest.fixture
def setting():
    return small_model(), random_batch(), random_noise()


def test_joint_and_one_pass_have_the_same_value(setting):
    joint, terms = joint_loss(*setting, 0.3)
    em, others = one_pass_loss(*setting, 0.3)
    assert torch.equal(joint, em)
    assert torch.equal(terms.state, others.state) and not terms.state.requires_grad


def test_joint_gradient_in_phi_is_ems_and_the_world_models(setting):
    model, batch, noise = setting
    joint = slopes(model, joint_loss(model, batch, noise, 0.3)[0])
    em = slopes(model, one_pass_loss(model, batch, noise, 0.3)[0])
    q = model.posterior(batch.before, batch.actions)
    z = q.loc + q.scale * noise
    state = slopes(model, -model.world_model(batch.first, z).log_prob(batch.last).sum(-1).mean())
    assert torch.allclose(joint["posterior"], em["posterior"] + state["posterior"], atol=1e-10)
    assert state["posterior"].norm() > 1e-3 * em["posterior"].norm()
    for part in PARTS[1:]:
        assert torch.allclose(joint[part], em[part], atol=1e-12)


def test_joint_gradient_in_phi_is_the_slope_of_the_loss(setting):
    """Finite differences: the joint loss has no stop in it, so its slope is its gradient."""
    model, batch, noise = setting
    gradient = slopes(model, joint_loss(model, batch, noise, 0.3)[0])["posterior"]
    weight, step = model.posterior.heads.mean_head.fc2.bias, 1e-6
    before = weight.detach().clone()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.copy_(before)
            weight[0] += sign * step
            values.append(joint_loss(model, batch, noise, 0.3)[0].item())
    offset = 0
    for name, parameter in model.posterior.named_parameters():
        if name == "heads.mean_head.fc2.bias":
            break
        offset += parameter.numel()
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient[offset].item(), rel=1e-5)


def test_trainers_start_alike_and_part_in_the_posterior():
    data = numbered_transitions([30] * 10)
    em, joint = (cls(tiny_config(), data, 0) for cls in (Trainer, JointTrainer))
    for trainer in (em, joint):
        assert np.isfinite(trainer.step()["elbo"])
    same = {
        part: all(
            torch.equal(p, dict(getattr(joint.model, part).named_parameters())[name])
            for name, p in getattr(em.model, part).named_parameters()
        )
        for part in PARTS
    }
    # Adam and the clipping see another vector as a whole, so only the posterior is sure to differ.
    assert not same["posterior"]


def test_the_joint_elbo_is_refused_two_steps():
    data = numbered_transitions([30] * 10)
    with pytest.raises(UserError, match="one-pass, not 'em'"):
        JointTrainer(tiny_config(method="em"), data, 0)


def test_absolute_model_predicts_in_units_of_the_states():
    model = predict_absolute(small_model())
    assert isinstance(model.world_model, AbsoluteWorldModel)
    state, z = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    outcome = model.world_model(state, z)
    heads = model.world_model.heads(model.world_model.features(state, z))
    normaliser = model.normaliser
    assert torch.allclose(outcome.loc, normaliser.mean + normaliser.std * heads.loc)
    assert torch.allclose(outcome.scale, normaliser.std * heads.scale)
    assert torch.allclose(model.world_model.mean(state, z), outcome.loc)


def test_absolute_trainer_trains_the_world_model_that_it_put_in(tmp_path):
    trainer = AbsoluteTrainer(tiny_config(), numbered_transitions([30] * 10), 0)
    before = [p.detach().clone() for p in trainer.model.world_model.parameters()]
    model = trainer.run(tmp_path)
    assert isinstance(model.world_model, AbsoluteWorldModel)
    assert all(
        not torch.equal(old, new)
        for old, new in zip(before, model.world_model.parameters(), strict=True)
    )
