"""Small mistakes in the mathematics, and the tests that must fail for each of them.

Run it to see what catches what:  python tests/mutations.py [NAME ...]

Each mutation replaces one piece of text, which must occur exactly once in its file, in a copy of
the package, and runs the named tests against that copy. Torch, the simulator and pytest are loaded
once; a child process is forked for every mutation and imports the changed package anew.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = ROOT / "mbta_helpers"


@dataclass(frozen=True)
class Mutation:
    """A change, and the tests that must fail: test_FILE.py's name without both ends, "::", test."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutation(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, file, old, new, tests)


OBJECTIVES = [
    mutation(
        "KL: the scales are swapped",
        "objectives.py",
        "ratio = (q.scale / p.scale).square()",
        "ratio = (p.scale / q.scale).square()",
        "objectives::test_kl_is_not_symmetric_and_vanishes_only_at_equality",
        "objectives::test_terms_equal_torch_distributions",
    ),
    mutation(
        "KL: the means are apart in units of q",
        "objectives.py",
        "((q.loc - p.loc) / p.scale).square()",
        "((q.loc - p.loc) / q.scale).square()",
        "objectives::test_terms_equal_torch_distributions",
    ),
    mutation(
        "KL: sign of the logarithm",
        "objectives.py",
        "shift - 1.0 - ratio.log()",
        "shift - 1.0 + ratio.log()",
        "objectives::test_kl_is_not_symmetric_and_vanishes_only_at_equality",
    ),
    mutation(
        "KL: no half",
        "objectives.py",
        "return 0.5 * (ratio",
        "return (ratio",
        "objectives::test_terms_equal_torch_distributions",
        "objectives::test_linear_gaussian_elbo_is_evidence_minus_divergence",
    ),
    mutation(
        "E-step: KL the other way round",
        "objectives.py",
        "kl = gaussian_kl(q, model.prior(batch.first)).sum(-1)  # (B,)",
        "kl = gaussian_kl(model.prior(batch.first), q).sum(-1)",
        "objectives::test_linear_gaussian_e_step_aims_at_the_posterior_without_the_world_model",
    ),
    mutation(
        "E-step: the policy is evaluated without gradients",
        "objectives.py",
        "return (beta * kl - action_log_likelihood(model.policy, batch, z)).mean()",
        "with torch.no_grad():\n"
        "        action = action_log_likelihood(model.policy, batch, z)\n"
        "    return (beta * kl - action).mean()",
        "objectives::test_e_step_gradient_is_the_derivative_through_z",
        "objectives::test_e_step_gradient_is_more_than_that_of_the_divergence",
    ),
    mutation(
        "E-step: z is detached",
        "objectives.py",
        "return (beta * kl - action_log_likelihood(model.policy, batch, z)).mean()",
        "return (beta * kl - action_log_likelihood(model.policy, batch, z.detach())).mean()",
        "objectives::test_e_step_gradient_is_the_derivative_through_z",
    ),
    mutation(
        "E-step: the world model is in it",
        "objectives.py",
        "return (beta * kl - action_log_likelihood(model.policy, batch, z)).mean()",
        "state = model.world_model(batch.first, z).log_prob(batch.last).sum(-1)\n"
        "    return (beta * kl - action_log_likelihood(model.policy, batch, z) - state).mean()",
        "objectives::test_e_step_does_not_know_the_world_model",
        "objectives::test_only_the_state_term_sees_s_T",
    ),
    mutation(
        "E-step: sign of the policy's term",
        "objectives.py",
        "return (beta * kl - action_log_likelihood(",
        "return (beta * kl + action_log_likelihood(",
        "objectives::test_linear_gaussian_e_step_aims_at_the_posterior_without_the_world_model",
    ),
    mutation(
        "M-step: the posterior moves too",
        "objectives.py",
        "with torch.no_grad():\n        q = model.posterior",
        "with torch.enable_grad():\n        q = model.posterior",
        "objectives::test_m_step_holds_the_posterior_fixed",
    ),
    mutation(
        "one pass: the world model's gradient reaches the posterior",
        "objectives.py",
        "state=model.world_model(batch.first, z.detach())",
        "state=model.world_model(batch.first, z)",
        "objectives::test_e_step_does_not_know_the_world_model",
        "objectives::test_one_pass_gradients_at_one_point",
    ),
    mutation(
        "one pass: z is detached for the policy",
        "objectives.py",
        "action=action_log_likelihood(model.policy, batch, z),\n"
        "        state=model.world_model(batch.first, z.detach())",
        "action=action_log_likelihood(model.policy, batch, z.detach()),\n"
        "        state=model.world_model(batch.first, z.detach())",
        "objectives::test_one_pass_gradients_at_one_point",
    ),
    mutation(
        "likelihood: mean over the steps",
        "objectives.py",
        ".log_prob(batch.actions).sum((1, 2))",
        ".log_prob(batch.actions).mean((1, 2))",
        "objectives::test_action_likelihood_sums_over_steps_and_dimensions",
    ),
    mutation(
        "likelihood: sum over the wrong axis",
        "objectives.py",
        ".log_prob(batch.actions).sum((1, 2))",
        ".log_prob(batch.actions).sum((0, 2))",
        "objectives::test_action_likelihood_sums_over_steps_and_dimensions",
    ),
    mutation(
        "ELBO: the divergence is added",
        "objectives.py",
        "self.action + self.state - beta * self.kl",
        "self.action + self.state + beta * self.kl",
        "objectives::test_elbo_is_action_plus_state_minus_beta_kl",
        "objectives::test_beta_weighs_the_divergence_and_nothing_else",
    ),
    mutation(
        "ELBO: β is forgotten",
        "objectives.py",
        "self.action + self.state - beta * self.kl",
        "self.action + self.state - self.kl",
        "objectives::test_elbo_is_action_plus_state_minus_beta_kl",
        "objectives::test_beta_weighs_the_divergence_and_nothing_else",
    ),
    mutation(
        "ELBO: variance for standard deviation in z",
        "objectives.py",
        'for one sample of z; noise: (B, Z)."""\n'
        "    q = model.posterior(batch.before, batch.actions)\n"
        "    z = q.loc + q.scale * noise",
        'for one sample of z; noise: (B, Z)."""\n'
        "    q = model.posterior(batch.before, batch.actions)\n"
        "    z = q.loc + q.scale.square() * noise",
        "objectives::test_linear_gaussian_elbo_is_evidence_minus_divergence",
        "objectives::test_terms_equal_torch_distributions",
    ),
    mutation(
        "support: the labels are swapped",
        "objectives.py",
        "softplus(-support(state)) + softplus(support(elsewhere))",
        "softplus(support(state)) + softplus(-support(elsewhere))",
        "objectives::test_support_loss_is_the_cross_entropy_of_a_classifier",
    ),
]

WINDOWS = [
    mutation(
        "s_T is one step early",
        "windows.py",
        "return self.states[:, -1]",
        "return self.states[:, -2]",
        "windows::test_window_is_one_step_longer_in_states",
    ),
    mutation(
        "the states are those after the actions",
        "windows.py",
        "return self.states[:, :-1]",
        "return self.states[:, 1:]",
        "windows::test_window_is_one_step_longer_in_states",
        "objectives::test_only_the_state_term_sees_s_T",
    ),
    mutation(
        "ends: the last state is one step early",
        "windows.py",
        "self._states[first, self.window_length]",
        "self._states[first, self.window_length - 1]",
        "networks::test_normaliser_against_numpy",
    ),
    mutation(
        "a window reaches into the next episode",
        "windows.py",
        "(lengths - window_length) // stride + 1, 0)",
        "(lengths - window_length) // stride + 2, 0)",
        "windows::test_all_episodes_by_default",
        "training::test_no_state_is_on_both_sides_of_the_split",
    ),
    mutation(
        "an episode's last window is left out",
        "windows.py",
        "(lengths - window_length) // stride + 1, 0)",
        "(lengths - window_length) // stride, 0)",
        "windows::test_all_episodes_by_default",
    ),
    mutation(
        "actions are counted like states",
        "windows.py",
        "self._actions.index_select(0, self._first_actions(first))",
        "self._actions.index_select(0, first)",
        "windows::test_window_is_one_step_longer_in_states",
    ),
    mutation(
        "states are counted like actions",
        "datasets.py",
        "return self.action_starts + np.arange(len(self.lengths))",
        "return self.action_starts",
        "windows::test_window_is_one_step_longer_in_states",
    ),
    mutation(
        "the windows that move are dropped",
        "windows.py",
        "keep = moved >= min_displacement",
        "keep = moved < min_displacement",
        "windows::test_idle_windows_are_dropped",
    ),
    mutation(
        "an episode is on both sides of the split",
        "windows.py",
        "return np.sort(order[count:])",
        "return np.sort(order[count - 1 :])",
        "training::test_no_state_is_on_both_sides_of_the_split",
    ),
]

NETWORKS = [
    mutation(
        "the backward direction has seen one step",
        "networks.py",
        "seen = torch.cat([final[-2], final[-1]], -1)",
        "seen = self.gru(torch.cat([features, actions], -1))[0][:, -1]",
        "networks::test_each_direction_of_the_posterior_sees_the_whole_window",
        "networks::test_posterior_equals_its_equations",
    ),
    mutation(
        "the forward direction is read twice",
        "networks.py",
        "seen = torch.cat([final[-2], final[-1]], -1)",
        "seen = torch.cat([final[-2], final[-2]], -1)",
        "networks::test_posterior_equals_its_equations",
    ),
    mutation(
        "the world model's mean is no difference",
        "networks.py",
        "return state + self.normaliser.delta_std * self.heads.mean(self.features(state, z))",
        "return self.normaliser.delta_std * self.heads.mean(self.features(state, z))",
        "networks::test_world_model_predicts_a_difference",
        "networks::test_world_model_mean_is_the_mean_of_its_distribution",
    ),
    mutation(
        "the world model's spread is not in map units",
        "networks.py",
        "scale * self.heads.std(features)",
        "self.heads.std(features)",
        "networks::test_policy_world_model_and_prior_equal_their_equations",
    ),
    mutation(
        "standard deviations pass their bound",
        "networks.py",
        "self.min_std + (self.max_std - self.min_std) * self.std_head",
        "self.min_std + self.max_std * self.std_head",
        "networks::test_standard_deviations_stay_inside_their_bounds",
    ),
    mutation(
        "the normaliser multiplies",
        "networks.py",
        "(state - self.mean) / self.std",
        "(state - self.mean) * self.std",
        "networks::test_normaliser_against_numpy",
    ),
    mutation(
        "displacements are measured about their mean",
        "networks.py",
        "(last - first).square().mean(0).sqrt()",
        "(last - first).std(0)",
        "networks::test_normaliser_against_numpy",
    ),
]

LED_POLICY = [
    mutation(
        "an ant's skill has no lead",
        "networks.py",
        "nn.functional.pad(way, (0, rest))",
        "nn.functional.pad(0 * way, (0, rest))",
        "networks::test_an_ant_s_skill_counts_from_its_way",
    ),
    mutation(
        "an ant's spreads stay with the legs that the network knows",
        "networks.py",
        "scale = led_torques(own.scale, front).abs()",
        "scale = own.scale",
        "networks::test_an_ant_s_policy_is_one_network_for_all_fronts",
    ),
    mutation(
        "the front does not turn with the ant",
        "ants.py",
        "bearing = torch.atan2(lead[..., 1], lead[..., 0]) - yaw",
        "bearing = torch.atan2(lead[..., 1], lead[..., 0])",
        "ants::test_the_led_frame_is_what_the_controller_sees",
        "ants::test_the_led_frame_does_not_know_the_legs_names",
    ),
    mutation(
        "torques go back to the legs the wrong way round",
        "ants.py",
        "_from_leg(actions.unflatten(-1, (4, 2)), -front)",
        "_from_leg(actions.unflatten(-1, (4, 2)), front)",
        "ants::test_led_torques_are_torques",
    ),
    mutation(
        "angular velocities are turned as if they were the world's",
        "ants.py",
        "_ANGULAR * _turned(states[..., 18:20], quarter)",
        "_ANGULAR * _turned(states[..., 18:20], facing)",
        "ants::test_the_led_frame_is_what_the_controller_sees",
    ),
    mutation(
        "every ankle bends as MuJoCo has it",
        "ants.py",
        "_from_leg(joints.unflatten(-1, (4, 2)) * _BENDS_DOWN.to(joints), front)",
        "_from_leg(joints.unflatten(-1, (4, 2)), front)",
        "ants::test_the_led_frame_is_what_the_controller_sees",
    ),
]

PLANNING = [
    mutation(
        "elites are taken from the wrong end",
        "planning.py",
        "largest=False",
        "largest=True",
        "planning::test_cem_finds_known_optima_of_several_problems",
        "planning::test_update_takes_the_cheapest_and_keeps_a_part_of_the_old",
    ),
    mutation(
        "the best so far is forgotten",
        "planning.py",
        "candidates[:, 0] = best",
        "candidates[:, 0] = mean",
        "planning::test_best_so_far_is_never_lost",
    ),
    mutation(
        "the search takes variances for standard deviations",
        "planning.py",
        "elites.std(1)",
        "elites.var(1)",
        "planning::test_update_takes_the_cheapest_and_keeps_a_part_of_the_old",
    ),
    mutation(
        "momentum weighs the new mean",
        "planning.py",
        "mean = config.momentum * mean + (1 - config.momentum) * elites.mean(1)",
        "mean = (1 - config.momentum) * mean + config.momentum * elites.mean(1)",
        "planning::test_update_takes_the_cheapest_and_keeps_a_part_of_the_old",
    ),
    mutation(
        "noise is drawn once for all problems",
        "planning.py",
        "std[:, None] * noise.to(mean)",
        "std[:, None] * noise[:1].to(mean)",
        "planning::test_a_batch_of_problems_is_the_same_as_one_by_one",
    ),
    mutation(
        "the warm start is not shifted",
        "planning.py",
        "after = torch.cat([search.best[:, 1:],",
        "after = torch.cat([search.best[:, :-1],",
        "planning::test_warm_start_after_a_whole_skill_drops_it",
    ),
    mutation(
        "the shift takes the rest for the part",
        "planning.py",
        "mean = (1 - fraction) * search.best + fraction * after",
        "mean = fraction * search.best + (1 - fraction) * after",
        "planning::test_warm_start_in_the_middle_of_a_skill_moves_part_of_the_way",
    ),
    mutation(
        "skills are whitened with the variance",
        "planning.py",
        "z = prior.loc + prior.scale * whitened",
        "z = prior.loc + prior.scale.square() * whitened",
        "planning::test_imagine_equals_a_plain_loop",
    ),
    mutation(
        "every skill comes from the first state's prior",
        "planning.py",
        "prior = model.prior(current)",
        "prior = model.prior(path[0])",
        "planning::test_imagine_equals_a_plain_loop",
    ),
    mutation(
        "a skill that does nothing is chosen again",
        "evaluation.py",
        ".norm(dim=1) < self.planner.config.least_move",
        ".norm(dim=1) < 0",
        "evaluation::test_a_body_that_does_not_move_gets_a_skill_from_the_prior",
    ),
    mutation(
        "the smallest and the final cost are swapped",
        "planning.py",
        'if config.cost == "final" else',
        'if config.cost != "final" else',
        "planning::test_cost_is_the_smallest_or_the_last_distance",
    ),
    mutation(
        "the current state counts, the last one does not",
        "planning.py",
        "path[:, :, 1:, :2] - goal",
        "path[:, :, :-1, :2] - goal",
        "planning::test_distance_counts_no_step_before_the_first_skill",
    ),
    mutation(
        "standard deviation for variance in the penalty",
        "planning.py",
        "outcome.scale[..., :2].square().mean(-1)",
        "outcome.scale[..., :2].mean(-1)",
        "planning::test_variance_penalty_is_the_variance_of_the_predicted_position",
    ),
    mutation(
        "ε is penalised by its first power",
        "planning.py",
        "epsilon.square().mean(-1)",
        "epsilon.abs().mean(-1)",
        "planning::test_epsilon_penalty_is_the_mean_square_of_epsilon_a_skill",
        "planning::test_penalised_plan_equals_the_closed_form",
    ),
    mutation(
        "states like the data are avoided",
        "planning.py",
        "surprise = -config.support_penalty * logsigmoid",
        "surprise = config.support_penalty * logsigmoid",
        "planning::test_support_penalty_is_minus_the_log_probability_of_each_state_passed",
    ),
    mutation(
        "an arrival counts no state's support",
        "planning.py",
        "total = total - surprise",
        "total = total - surprise.cumsum(-1)",
        "planning::test_arrival_spares_the_state_where_the_distance_is_read",
    ),
]

TRAINING = [
    mutation(
        "the M-step updates the posterior",
        "training.py",
        "self._descend(generative, loss)",
        "self._descend(posterior, loss)",
        "training::test_updates_equal_the_algorithm_written_out",
    ),
    mutation(
        "the normaliser is fitted on the held-out episodes",
        "training.py",
        "self.model.normaliser.fit(self.windows)",
        "self.model.normaliser.fit(self.held_out)",
        "training::test_normaliser_knows_the_training_split_only",
    ),
    mutation(
        "β is late by one update",
        "training.py",
        "(self.update + 1) / max(self.config.beta_warmup, 1)",
        "self.update / max(self.config.beta_warmup, 1)",
        "training::test_beta_warms_up_in_a_line",
    ),
    mutation(
        "the learning rate rises where it should fall",
        "training.py",
        "0.5 * (1 + math.cos(",
        "0.5 * (1 - math.cos(",
        "training::test_one_cycle_rises_in_a_line_and_falls_as_a_cosine",
    ),
    mutation(
        "settled windows lead backwards",
        "training.py",
        "self.first, self.last = windows.ends(",
        "self.last, self.first = windows.ends(",
        "training::test_settled_windows_hold_the_posterior_of_their_own_window",
    ),
    mutation(
        "testing draws from the run's generator",
        "training.py",
        "generator = torch.Generator().manual_seed(self.seed)\n        terms = []",
        "generator = self.generator\n        terms = []",
        "training::test_testing_does_not_disturb_the_run",
    ),
    mutation(
        "a resumed run draws other numbers",
        "training.py",
        'self.generator.set_state(tensors["generator"])',
        'tensors["generator"]',
        "training::test_a_resumed_run_equals_one_that_was_not_stopped",
    ),
    mutation(
        "a resumed run begins with fresh optimisers",
        "training.py",
        'optimiser.load_state_dict(optimiser.state_dict() | {"state": state})',
        "pass",
        "training::test_a_resumed_run_equals_one_that_was_not_stopped",
    ),
]

PRECISION = [
    mutation(
        "precision: bfloat16 where it is only imitated",
        "precision.py",
        'low = precision == "bfloat16" and multiplies_bfloat16(device.type)',
        'low = precision == "bfloat16"',
        "precision::test_products_are_low_where_asked_and_able",
    ),
    mutation(
        "precision: a GPU that imitates it counts",
        "precision.py",
        "including_emulation=False",
        "including_emulation=True",
        "precision::test_a_gpu_that_only_imitates_it_does_not_count",
    ),
]

DISTRIBUTED = [
    mutation(
        "every process keeps its own gradients",
        "distributed.py",
        "return DistributedDataParallel(Averaged(parameters))",
        "return nn.Identity()",
        "distributed::test_two_processes_train_what_one_does",
    ),
    mutation(
        "every process takes the first rows of the batch",
        "distributed.py",
        "slice(self.rank * size, (self.rank + 1) * size)",
        "slice(0, size)",
        "distributed::test_two_processes_train_what_one_does",
        "distributed::test_shares_make_up_the_batch",
    ),
    mutation(
        "every process draws noise of its own",
        "training.py",
        "return whole[self.processes.rows(size)].to(self.device)",
        "return torch.randn_like(whole)[self.processes.rows(size)].to(self.device)",
        "distributed::test_two_processes_train_what_one_does",
    ),
    mutation(
        "the metrics are those of the first process's rows",
        "training.py",
        "**self.processes.mean(measured)",
        "**measured",
        "distributed::test_two_processes_train_what_one_does",
    ),
]

EVALUATION = [
    mutation(
        "Wilson: a wrong constant under the root",
        "evaluation.py",
        "spread / (4 * trials)",
        "spread / (2 * trials)",
        "evaluation::test_wilson_interval_solves_its_equation",
        "evaluation::test_wilson_interval_has_the_values_of_the_literature",
    ),
    mutation(
        "steps are counted from zero",
        "evaluation.py",
        "steps[running[there]] = now + 1",
        "steps[running[there]] = now",
        "evaluation::test_paths_lead_from_start_to_goal",
    ),
    mutation(
        "an episode carries out its neighbour's decision",
        "evaluation.py",
        "decision = decision[torch.from_numpy(~there)]",
        "decision = decision[: int((~there).sum())]",
        "evaluation::test_decisions_are_made_on_time_and_for_those_who_run",
    ),
    mutation(
        "an episode takes up its neighbour's plan",
        "evaluation.py",
        "np.isin(self._running, running)",
        "np.arange(len(self._running)) < len(running)",
        "evaluation::test_planning_agent_takes_up_each_episode_s_own_search",
    ),
    mutation(
        "the start of a path moves with the point",
        "evaluation.py",
        "bodies.states[:, :2].copy()",
        "bodies.states[:, :2]",
        "evaluation::test_paths_lead_from_start_to_goal",
    ),
]

CHECKPOINTS = [
    mutation(
        "the checksum does not see the numbers",
        "checkpoints.py",
        "content.update(tensor.flatten().view(torch.uint8).numpy().tobytes())",
        "content.update(tensor.numpy().tobytes()[:0])",
        "checkpoints::test_a_changed_number_is_noticed",
    ),
    mutation(
        "the checksum does not see the configuration",
        "checkpoints.py",
        'if name != "sha256"',
        'if name not in ("sha256", "config")',
        "checkpoints::test_a_changed_header_is_noticed",
    ),
    mutation(
        "the old file is written over",
        "checkpoints.py",
        "partial.write_bytes(content)",
        "path.write_bytes(content)",
        "checkpoints::test_a_full_disk_leaves_the_old_file",
    ),
    mutation(
        "a newer format is read as if it were known",
        "checkpoints.py",
        'header["format"] <= FORMAT',
        'header["format"] >= FORMAT',
        "checkpoints::test_a_newer_format_asks_for_a_newer_package",
    ),
]

WALKS = [
    mutation(
        "a fall is cut where the ant lies",
        "walks.py",
        "int(np.flatnonzero(upright)[-1]) - self.config.dropped",
        "age - self.config.dropped",
        "walks::test_a_fall_is_cut_some_steps_before_the_ant_tilts",
    ),
    mutation(
        "falls are kept",
        "walks.py",
        "if not upright[-1]:",
        "if not upright.any():",
        "walks::test_no_fall_is_kept",
    ),
    mutation(
        "an ant that holds walks on",
        "walks.py",
        'self.arrived & (self.config.after_goal == "resample")',
        "self.arrived.copy()",
        "walks::test_an_ant_that_holds_stays",
    ),
    mutation(
        "the goal of a step is that after it",
        "walks.py",
        "self.wanted[rows, self.age] = self.goals\n        self.look(states[:, :2])",
        "self.look(states[:, :2])\n        self.wanted[rows, self.age] = self.goals",
        "walks::test_a_goal_is_taken_anew_when_it_is_reached",
        "walks::test_a_stored_ant_has_the_schema_of_d4rl",
    ),
    mutation(
        "an ant that gets nowhere goes on trying",
        "walks.py",
        "(self.waited > self.config.patience) & ~self.arrived",
        "(self.waited < 0) & ~self.arrived",
        "walks::test_an_ant_that_gets_nowhere_takes_another_goal",
    ),
    mutation(
        "the simulator is given other torques than are kept",
        "walks.py",
        "actions.clip(-1, 1).astype(np.float32)\n        self.moves[rows, self.age] = actions",
        "actions.clip(-1, 1)\n        self.moves[rows, self.age] = 0.999 * actions",
        "walks::test_every_stored_step_is_the_simulator_s",
    ),
    mutation(
        "an ant's states are stored in single precision",
        "datasets.py",
        "states=walks.states,",
        "states=walks.states.astype(np.float32).astype(float),",
        "walks::test_every_stored_step_is_the_simulator_s",
    ),
    mutation(
        "an ant's position is stored twice",
        "datasets.py",
        "states[:, recording.body :]",
        "states",
        "walks::test_a_stored_ant_has_the_schema_of_d4rl",
    ),
    mutation(
        "contact forces are taken for the body",
        "datasets.py",
        "body = body[:, :BODY]",
        "body = body[:, -BODY:]",
        "datasets::test_an_ant_of_version_5_loses_its_contact_forces",
    ),
    mutation(
        "a download is seen before it is whole",
        "datasets.py",
        "with _reserved(dataset_id) as target, _arriving(dataset_id, target):",
        "with _reserved(dataset_id) as target:",
        "datasets::test_a_dataset_of_d4rl_is_downloaded_once",
        "datasets::test_an_interrupted_download_leaves_nothing_and_starts_anew",
    ),
    mutation(
        "clearance is counted in cells",
        "mazes.py",
        "(xy[..., 0] + dx) / self.side",
        "xy[..., 0] / self.side + dx",
        "mazes::test_a_larger_cell_is_the_same_maze_in_other_units",
    ),
]

ROOMS = [
    mutation(
        "rooms: the slip comes after the move",
        "hierarchical/four_rooms.py",
        "        carried_out = (action + slip) % self.actions  # the slip comes before the move\n"
        "        after = self.next_state[state, carried_out]",
        "        after = self.next_state[state, action]\n"
        "        slid = self.next_state[after, (action + slip) % self.actions]\n"
        "        after = np.where(slip > 0, slid, after)",
        "four_rooms::test_the_slip_comes_before_the_move",
        "four_rooms::test_transitions_and_rewards_are_those_of_steps",
    ),
    mutation(
        "rooms: the slip may choose the same action",
        "hierarchical/four_rooms.py",
        "others = (moves.sum(1, keepdims=True) - moves) / (self.actions - 1)",
        "others = moves.mean(1, keepdims=True)",
        "four_rooms::test_transitions_and_rewards_are_those_of_steps",
    ),
    mutation(
        "rooms: an episode may begin at the goal",
        "hierarchical/four_rooms.py",
        "return state + (state >= goal)",
        "return state",
        "four_rooms::test_starts_are_uniform_over_all_but_the_goal",
    ),
    mutation(
        "rooms: runs share their random numbers",
        "hierarchical/four_rooms.py",
        "[self.generators[row].random(shape) for row in self.row]",
        "[self.generators[0].random(shape) for row in self.row]",
        "four_rooms::test_a_run_depends_on_its_own_seed_alone",
    ),
]

OPTIONS = [
    mutation(
        "model: an option goes on with β",
        "hierarchical/options.py",
        "((1 - options.termination) * lives)[:, None]  # γ P_π C",
        "(options.termination * lives)[:, None]  # γ P_π C",
        "options::test_models_by_hand",
        "options::test_models_against_the_sum_over_steps",
    ),
    mutation(
        "model: life goes on at the goal",
        "hierarchical/options.py",
        "ends = gamma * step * (options.termination * lives)[:, None]",
        "ends = gamma * step * options.termination[:, None]",
        "options::test_models_by_hand",
        "options::test_models_of_primitive_options_are_the_mdp",
    ),
    mutation(
        "SMDP: a discount for each decision",
        "hierarchical/options.py",
        "total + discount * terminated, discount * config.gamma",
        "total + terminated, np.full_like(discount, config.gamma)",
        "options::test_learned_values_are_the_exact_ones",
    ),
    mutation(
        "SMDP: cut off is taken for the end",
        "hierarchical/options.py",
        "target = smdp_target(total[i], discount[i], terminated[i], left)",
        "target = smdp_target(total[i], discount[i], (terminated | truncated)[i], left)",
        "options::test_running_out_of_steps_is_not_the_end",
    ),
    mutation(
        "target: bootstraps at the goal",
        "hierarchical/options.py",
        "return reward + discount * ~terminated * after",
        "return reward + discount * after",
        "options::test_targets_by_hand",
    ),
    mutation(
        "U: β the other way round",
        "hierarchical/options.py",
        "return ends * best + (1 - ends) * np.where(ends < 1, q_option, 0.0)",
        "return (1 - ends) * best + ends * np.where(ends < 1, q_option, 0.0)",
        "options::test_targets_by_hand",
        "options::test_learned_values_are_the_exact_ones",
    ),
    mutation(
        "intra-option: only the option that ran learns",
        "hierarchical/options.py",
        "np.nonzero(begins[state] & (action[:, None] == takes[:, state].T))",
        "(np.arange(len(row)), option)",
        "options::test_intra_option_learning_updates_every_option_that_would_have_acted_alike",
    ),
    mutation(
        "intra-option: every option learns, whatever it would have done",
        "hierarchical/options.py",
        "np.nonzero(begins[state] & (action[:, None] == takes[:, state].T))",
        "np.nonzero(begins[state])",
        "options::test_intra_option_learning_updates_every_option_that_would_have_acted_alike",
        "options::test_both_rules_are_q_learning_where_options_are_primitive",
    ),
]

OPTION_CRITIC = [
    mutation(
        "Option-Critic: V_Ω is the maximum",
        "hierarchical/option_critic.py",
        "return (1 - epsilon) * q.max(-1) + epsilon * q.mean(-1)",
        "return q.max(-1)",
        "option_critic::test_option_value_is_the_mean_over_the_policy_over_options",
        "option_critic::test_runs_side_by_side_are_the_plain_loop",
        "option_critic::test_with_the_best_option_as_baseline_terminations_only_rise",
    ),
    mutation(
        "Option-Critic: U without the deliberation cost",
        "hierarchical/option_critic.py",
        "return (1 - beta) * q + beta * (v - cost)",
        "return (1 - beta) * q + beta * v",
        "option_critic::test_arrival_value_by_hand",
        "option_critic::test_runs_side_by_side_are_the_plain_loop",
    ),
    mutation(
        "Option-Critic: terminations climb the advantage",
        "hierarchical/option_critic.py",
        "return -beta * (1 - beta) * (q - v + cost)",
        "return beta * (1 - beta) * (q - v + cost)",
        "option_critic::test_termination_gradient_by_hand",
        "option_critic::test_gradients_are_finite_differences_of_the_objective",
    ),
    mutation(
        "Option-Critic: the cost enters U alone",
        "hierarchical/option_critic.py",
        "return -beta * (1 - beta) * (q - v + cost)",
        "return -beta * (1 - beta) * (q - v)",
        "option_critic::test_termination_gradient_by_hand",
        "option_critic::test_gradients_are_finite_differences_of_the_objective",
    ),
    mutation(
        "Option-Critic: β is updated at s",
        "hierarchical/option_critic.py",
        "vartheta[row, after, option] += config",
        "vartheta[row, state, option] += config",
        "option_critic::test_runs_side_by_side_are_the_plain_loop",
    ),
    mutation(
        "Option-Critic: β of another option than the one in force is updated",
        "hierarchical/option_critic.py",
        "vartheta[row, after, option] += config",
        "vartheta[row, after, q_after.argmax(-1)] += config",
        "option_critic::test_runs_side_by_side_are_the_plain_loop",
    ),
    mutation(
        "Option-Critic: terminations learn at the goal",
        "hierarchical/option_critic.py",
        "config.termination_rate * ~terminated * step",
        "config.termination_rate * step",
        "option_critic::test_runs_side_by_side_are_the_plain_loop",
    ),
    mutation(
        "Option-Critic: bootstraps at the goal",
        "hierarchical/option_critic.py",
        "target = terminated + config.gamma * ~terminated * u",
        "target = terminated + config.gamma * u",
        "option_critic::test_the_goal_is_the_end",
        "option_critic::test_runs_side_by_side_are_the_plain_loop",
    ),
    mutation(
        "Option-Critic: cut off is taken for the end",
        "hierarchical/option_critic.py",
        "target = terminated + config.gamma * ~terminated * u",
        "target = terminated + config.gamma * ~(terminated | truncated) * u",
        "option_critic::test_running_out_of_steps_is_not_the_end",
    ),
    mutation(
        "Option-Critic: the actor has no baseline",
        "hierarchical/option_critic.py",
        "advantage = values[np.arange(len(row)), action] - (policy * values).sum(-1)",
        "advantage = values[np.arange(len(row)), action]",
        "option_critic::test_runs_side_by_side_are_the_plain_loop",
    ),
    mutation(
        "Option-Critic: the chosen action's logit alone moves",
        "hierarchical/option_critic.py",
        "gradient = -policy * advantage[:, None]",
        "gradient = 0 * policy",
        "option_critic::test_policy_gradient_is_that_of_the_logarithm",
    ),
    mutation(
        "exact: arrivals without the discount",
        "hierarchical/option_critic.py",
        'arrive = gamma * np.einsum("soa,sat->sot", pi, world.transitions) * lives',
        'arrive = np.einsum("soa,sat->sot", pi, world.transitions) * lives',
        "option_critic::test_exact_values_satisfy_their_equations",
    ),
    mutation(
        "exact: visits of the chain in the wrong direction",
        "hierarchical/option_critic.py",
        "np.linalg.solve(chain.T, first.ravel())",
        "np.linalg.solve(chain, first.ravel())",
        "option_critic::test_gradients_are_finite_differences_of_the_objective",
    ),
    mutation(
        "SARSA: bootstraps at the goal",
        "hierarchical/option_critic.py",
        "future = config.gamma * ~terminated * q[row, after, following]",
        "future = config.gamma * q[row, after, following]",
        "option_critic::test_sarsa_side_by_side_is_the_plain_loop",
    ),
]

SOFT_OPTION_CRITIC = [
    mutation(
        "Soft Option-Critic: neighbouring seeds share their starts",
        "hierarchical/soft_option_critic.py",
        "10**6 * (seed + 1) + 100 * taken",
        "seed + taken",
        "soft_option_critic::test_neighbouring_seeds_share_no_start",
    ),
    mutation(
        "Soft Option-Critic: V_Ω without the temperature in front",
        "hierarchical/soft_option_critic.py",
        "return temperature * (q / temperature).logsumexp(-1, keepdim=True)",
        "return (q / temperature).logsumexp(-1, keepdim=True)",
        "soft_option_critic::test_the_soft_value_is_the_largest_over_all_policies",
        "soft_option_critic::test_target_by_hand_for_every_option",
    ),
    mutation(
        "Soft Option-Critic: π_Ω without its temperature",
        "hierarchical/soft_option_critic.py",
        "return (q / temperature).softmax(-1)",
        "return q.softmax(-1)",
        "soft_option_critic::test_the_soft_value_is_the_largest_over_all_policies",
        "soft_option_critic::test_options_are_drawn_from_their_softmax",
    ),
    mutation(
        "Soft Option-Critic: U without the deliberation cost",
        "hierarchical/soft_option_critic.py",
        "return (1 - beta) * q + beta * (v - cost)",
        "return (1 - beta) * q + beta * v",
        "soft_option_critic::test_arrival_value_by_hand",
        "soft_option_critic::test_target_by_hand_for_every_option",
    ),
    mutation(
        "Soft Option-Critic: information without log Ω",
        "hierarchical/soft_option_critic.py",
        "return own - density.logsumexp(-1) + math.log(mean.shape[1])",
        "return own - density.logsumexp(-1)",
        "soft_option_critic::test_information_equals_torch_distributions",
        "soft_option_critic::test_information_of_equal_and_of_distant_options",
    ),
    mutation(
        "Soft Option-Critic: density under the wrong option",
        "hierarchical/soft_option_critic.py",
        "z = (u[:, :, None] - mean[:, None]) * (-log_std[:, None]).exp()",
        "z = (u[:, :, None] - mean[:, None]) * (-log_std[:, :, None]).exp()",
        "soft_option_critic::test_information_equals_torch_distributions",
    ),
    mutation(
        "Soft Option-Critic: the price of information has the wrong sign",
        "hierarchical/soft_option_critic.py",
        "self.temperature * log_density - self.config.diversity * told",
        "self.temperature * log_density + self.config.diversity * told",
        "soft_option_critic::test_the_price_is_of_entropy_and_of_information",
    ),
    mutation(
        "Soft Option-Critic: the target networks are never updated",
        "hierarchical/soft_option_critic.py",
        "        move_towards(self.targets, self.critics, self.config.tau)\n",
        "",
        "soft_option_critic::test_an_update_moves_everything_and_the_targets_by_their_share",
    ),
    mutation(
        "Soft Option-Critic: the option value is never trained",
        "hierarchical/soft_option_critic.py",
        "            loss = loss + self.option_value_loss(batch.observation, pairs)\n",
        "",
        "soft_option_critic::test_an_update_moves_everything_and_the_targets_by_their_share",
    ),
    mutation(
        "Soft Option-Critic: terminations are never trained",
        "hierarchical/soft_option_critic.py",
        "            loss = self.termination_loss(batch, q)\n            loss = loss + self",
        "            loss = self",
        "soft_option_critic::test_an_update_moves_everything_and_the_targets_by_their_share",
    ),
    mutation(
        "Soft Option-Critic: one option for the whole batch",
        "hierarchical/soft_option_critic.py",
        "        every = batch._replace(observation=pairs, action=action)\n",
        "        first = pairs[:: self.config.options].repeat_interleave(self.config.options, 0)\n"
        "        every = batch._replace(observation=first, action=action)\n",
        "soft_option_critic::test_an_update_teaches_every_option",
    ),
    mutation(
        "Soft Option-Critic: actions do not belong to their states",
        "hierarchical/soft_option_critic.py",
        "action = batch.action.repeat_interleave(self.config.options, 0)",
        "action = batch.action.repeat(self.config.options, 1)",
        "soft_option_critic::test_an_update_teaches_every_option",
    ),
    mutation(
        "Soft Option-Critic: bootstraps through the end",
        "hierarchical/soft_option_critic.py",
        "self.config.gamma * (1 - batch.terminated[:, None]) * u",
        "self.config.gamma * u",
        "soft_option_critic::test_target_by_hand_for_every_option",
    ),
    mutation(
        "Soft Option-Critic: U takes β at s",
        "hierarchical/soft_option_critic.py",
        "beta = self.termination(batch.next_observation).sigmoid()\n",
        "beta = self.termination(batch.observation).sigmoid()\n",
        "soft_option_critic::test_target_by_hand_for_every_option",
    ),
    mutation(
        "Soft Option-Critic: U takes Q_Ω at s",
        "hierarchical/soft_option_critic.py",
        "q = self.option_values(batch.next_observation).detach()",
        "q = self.option_values(batch.observation).detach()",
        "soft_option_critic::test_an_update_teaches_every_option",
    ),
    mutation(
        "Soft Option-Critic: terminations learn at s",
        "hierarchical/soft_option_critic.py",
        "return (self.termination(batch.next_observation).sigmoid() * bracket).mean()",
        "return (self.termination(batch.observation).sigmoid() * bracket).mean()",
        "soft_option_critic::test_termination_gradient_by_hand",
    ),
    mutation(
        "Soft Option-Critic: the cost enters U alone",
        "hierarchical/soft_option_critic.py",
        "(q - v + self.config.deliberation_cost)",
        "(q - v)",
        "soft_option_critic::test_termination_gradient_by_hand",
        "soft_option_critic::test_terminations_follow_the_sign_of_their_bracket",
    ),
    mutation(
        "Soft Option-Critic: terminations climb the advantage",
        "hierarchical/soft_option_critic.py",
        "return (self.termination(batch.next_observation).sigmoid() * bracket).mean()",
        "return -(self.termination(batch.next_observation).sigmoid() * bracket).mean()",
        "soft_option_critic::test_termination_gradient_by_hand",
        "soft_option_critic::test_terminations_follow_the_sign_of_their_bracket",
    ),
    mutation(
        "Soft Option-Critic: terminations learn at the end",
        "hierarchical/soft_option_critic.py",
        "bracket = (1 - batch.terminated[:, None]) * (q",
        "bracket = (q",
        "soft_option_critic::test_termination_gradient_by_hand",
    ),
    mutation(
        "Soft Option-Critic: the actor sees the larger critic",
        "hierarchical/soft_option_critic.py",
        "value = self.critics(observation, action).amin(0)",
        "value = self.critics(observation, action).amax(0)",
        "soft_option_critic::test_losses_of_the_actor_and_of_the_option_value_by_hand",
    ),
    mutation(
        "Soft Option-Critic: Q_Ω follows the fast critics",
        "hierarchical/soft_option_critic.py",
        "target = self.targets(pairs, action).amin(0) - price",
        "target = self.critics(pairs, action).amin(0) - price",
        "soft_option_critic::test_losses_of_the_actor_and_of_the_option_value_by_hand",
    ),
    mutation(
        "Soft Option-Critic: Q_Ω without the price of actions",
        "hierarchical/soft_option_critic.py",
        "target = self.targets(pairs, action).amin(0) - price",
        "target = self.targets(pairs, action).amin(0)",
        "soft_option_critic::test_losses_of_the_actor_and_of_the_option_value_by_hand",
    ),
    mutation(
        "Soft Option-Critic: an option ends where another would",
        "hierarchical/soft_option_critic.py",
        ".gather(1, option[:, None])[:, 0]",
        ".amax(1)",
        "soft_option_critic::test_endings_are_drawn_for_the_option_in_force",
    ),
    mutation(
        "Soft Option-Critic: the question whether to end is answered with an action",
        "hierarchical/soft_option_critic.py",
        "return torch.rand(beta.shape, generator=self.generator) < beta",
        "return self.act_with(observation, option)[:, 0]",
        "soft_option_critic::test_endings_are_drawn_for_the_option_in_force",
    ),
    mutation(
        "Soft Option-Critic: resets are stored as transitions",
        "hierarchical/soft_option_critic.py",
        "        live = ~over  # after",
        "        live = torch.ones_like(over)  # after",
        "soft_option_critic::test_a_reset_is_no_transition_and_running_out_of_time_is_no_end",
    ),
    mutation(
        "Soft Option-Critic: out of time is stored as the end",
        "hierarchical/soft_option_critic.py",
        "seen = Batch(observation, action, reward, after, terminated)",
        "seen = Batch(observation, action, reward, after, ended.float())",
        "soft_option_critic::test_a_reset_is_no_transition_and_running_out_of_time_is_no_end",
    ),
    mutation(
        "Soft Option-Critic: β is asked at s",
        "hierarchical/soft_option_critic.py",
        "begin = over | agent.ends(after, option)",
        "begin = over | agent.ends(observation, option)",
        "soft_option_critic::test_options_end_and_begin_at_the_state_that_is_reached",
    ),
    mutation(
        "Soft Option-Critic: actions are not stretched to their bounds",
        "hierarchical/soft_option_critic.py",
        "stretched = low + (action + 1) / 2 * (high - low)",
        "stretched = action",
        "soft_option_critic::test_a_reset_is_no_transition_and_running_out_of_time_is_no_end",
    ),
]

FEUDAL = [
    mutation(
        "feudal maze: only the goal pays",
        "hierarchical/feudal_maze.py",
        "if config.hide_rewards else step.hit",
        "if False else step.hit",
        "feudal_maze::test_a_command_carried_out_pays_one",
    ),
    mutation(
        "feudal maze: managers learn from disobedience",
        "hierarchical/feudal_maze.py",
        "learns = honest & over[level] |",
        "learns = over[level] |",
        "feudal_maze::test_managers_learn_only_from_obedience",
    ),
    mutation(
        "feudal maze: only the levels below have to obey",
        "hierarchical/feudal_maze.py",
        "honest &= done[level]",
        "honest &= done[min(level + 1, len(done) - 1)]",
        "feudal_maze::test_managers_learn_only_from_obedience",
    ),
    mutation(
        "feudal maze: a command is never given up",
        "hierarchical/feudal_maze.py",
        "given_up[level - 1] = tired & ~over[level - 1]",
        "given_up[level - 1] = False",
        "feudal_maze::test_a_command_is_given_up_after_some_decisions",
    ),
    mutation(
        "feudal maze: episodes begin inside walls",
        "hierarchical/feudal_maze.py",
        "stays = ~inside | ~free[number] | ~free[:, None]",
        "stays = ~inside | ~free[number]",
        "feudal_maze::test_moves_and_distances_agree_with_plain_geometry",
    ),
    mutation(
        "feudal maze: a find pays under every command",
        "hierarchical/feudal_maze.py",
        "return np.where(crossed, command == step.move, step.hit & (command == SEARCH))",
        "return np.where(crossed, command == step.move, step.hit)",
        "feudal_maze::test_the_goal_pays_those_who_were_told_to_search",
    ),
    mutation(
        "feudal maze: leaving any way is obedience",
        "hierarchical/feudal_maze.py",
        "np.where(crossed, command == step.move, step.hit",
        "np.where(crossed, command >= 0, step.hit",
        "feudal_maze::test_leaving_the_area_another_way_pays_nothing_and_teaches_the_manager_nothing",
    ),
    mutation(
        "feudal maze: looks ahead from where it was",
        "hierarchical/feudal_maze.py",
        "future = q[rows, areas[step.after]",
        "future = q[rows, areas[step.cell]",
        "feudal_maze::test_a_step_within_the_area_looks_ahead_under_the_same_command",
        "feudal_maze::test_one_level_is_q_learning",
    ),
    mutation(
        "feudal maze: looks ahead past the goal",
        "hierarchical/feudal_maze.py",
        "over = crossed[:, None] | step.hit",
        "over = crossed[:, None]",
        "feudal_maze::test_the_goal_pays_those_who_were_told_to_search",
        "feudal_maze::test_one_level_is_q_learning",
    ),
    mutation(
        "FuN: the direction is reversed",
        "hierarchical/fun.py",
        "F.cosine_similarity(now - state[before]",
        "F.cosine_similarity(state[before] - now",
        "fun::test_intrinsic_reward_equals_a_plain_loop",
        "fun::test_intrinsic_reward_is_one_on_a_straight_way_and_zero_without_goals",
    ),
    mutation(
        "FuN: the reward compares with the goal of now",
        "hierarchical/fun.py",
        "goal[before], -1)",
        "goal[horizon:], -1)",
        "fun::test_intrinsic_reward_equals_a_plain_loop",
    ),
    mutation(
        "FuN: the intrinsic reward looks across an episode's end",
        "hierarchical/fun.py",
        "torch.where(episode[before] == number, cosine, 0.0)",
        "cosine",
        "fun::test_intrinsic_reward_equals_a_plain_loop",
    ),
    mutation(
        "FuN: the worker is paid a step late",
        "hierarchical/fun.py",
        "goal, episode, c)[1:]",
        "goal, episode, c)[:-1]",
        "fun::test_a_rollout_carries_goals_of_its_own_episode_only",
    ),
    mutation(
        "FuN: goals of the last episode are added up",
        "hierarchical/fun.py",
        "same = self.episode[recent] == self.episode[now]",
        "same = self.episode[recent] >= -1",
        "fun::test_a_rollout_carries_goals_of_its_own_episode_only",
    ),
    mutation(
        "FuN: the manager's gradient moves the states",
        "hierarchical/fun.py",
        "state = view.state.detach()",
        "state = view.state",
        "fun::test_manager_gradient_is_a_finite_difference_and_reaches_goals_only",
    ),
    mutation(
        "FuN: the manager's sign",
        "hierarchical/fun.py",
        "return -(known * advantage * cosine)",
        "return (known * advantage * cosine)",
        "fun::test_manager_loss_equals_a_plain_loop",
        "fun::test_a_good_outcome_turns_the_goal_towards_where_the_agent_went",
    ),
    mutation(
        "FuN: goals of any length",
        "hierarchical/fun.py",
        "goal = F.normalize(self.director(s), dim=-1)",
        "goal = self.director(s)",
        "fun::test_goals_have_length_one_and_no_goals_give_a_uniform_policy",
    ),
    mutation(
        "FuN: a bias in φ",
        "hierarchical/fun.py",
        "bias=config.bias",
        "bias=True",
        "fun::test_goals_have_length_one_and_no_goals_give_a_uniform_policy",
    ),
    mutation(
        "FuN: the manager is paid for the worker's directions",
        "hierarchical/fun.py",
        "(rollout.reward, view.value, rollout.terminated",
        "(paid, view.value, rollout.terminated",
        "fun::test_the_worker_is_paid_for_directions_and_the_manager_for_the_goal",
    ),
    mutation(
        "FuN: the manager has the worker's discount",
        "hierarchical/fun.py",
        "rollout.terminated, config.manager_gamma)",
        "rollout.terminated, config.worker_gamma)",
        "fun::test_each_has_a_discount_of_its_own",
    ),
    mutation(
        "FuN: the worker dies at the goal",
        "hierarchical/fun.py",
        "deaths = rollout.terminated * config.mortal_worker",
        "deaths = rollout.terminated",
        "fun::test_only_the_manager_sees_the_goal_end_an_episode",
    ),
    mutation(
        "FuN: advantages flow across an episode's end",
        "hierarchical/fun.py",
        "future = live[t] * (delta + gamma * smoothing * future)",
        "future = delta + gamma * smoothing * future",
        "fun::test_advantages_equal_a_plain_sum_and_stop_at_ends",
    ),
    mutation(
        "FuN: no value after the time limit",
        "hierarchical/fun.py",
        "delta = reward[t] + gamma * going_on * value[t + 1]",
        "delta = reward[t] + gamma * live[t + 1] * value[t + 1]",
        "fun::test_advantages_equal_a_plain_sum_and_stop_at_ends",
    ),
    mutation(
        "FuN: the step that resets is learnt from",
        "hierarchical/fun.py",
        "live = rollout.live[:-1]\n",
        "live = torch.ones_like(rollout.live[:-1])\n",
        "fun::test_the_bonus_is_the_mean_entropy_of_the_steps_that_act",
    ),
    mutation(
        "FuN: random goals begin with the manager's",
        "hierarchical/fun.py",
        'if config.goals == "random":  # the',
        "if False:  # the",
        "fun::test_random_goals_are_never_the_managers",
    ),
    mutation(
        "FuN: a goal is judged by the next episode",
        "hierarchical/fun.py",
        "stop = torch.where(live[t + 1] > 0, end[t + 1], t + 1)",
        "stop = end[t + 1]",
        "fun::test_a_goal_is_judged_after_c_steps_or_at_the_end_of_its_episode",
        "fun::test_no_goal_is_judged_across_an_end",
    ),
]

DIAYN = [
    mutation(
        "DIAYN: log p(z) is added",
        "hierarchical/diayn.py",
        "self.discriminator(after) - log_prior",
        "self.discriminator(after) + log_prior",
        "diayn::test_reward_is_log_q_minus_log_p",
        "diayn::test_uniform_prior_adds_the_logarithm_of_the_number_of_skills",
    ),
    mutation(
        "DIAYN: − log p(z) is missing",
        "hierarchical/diayn.py",
        "((self.discriminator(after) - log_prior) * z)",
        "(self.discriminator(after) * z)",
        "diayn::test_reward_is_log_q_minus_log_p",
        "diayn::test_uniform_prior_adds_the_logarithm_of_the_number_of_skills",
    ),
    mutation(
        "DIAYN: the reward is that of s, and q learns from s",
        "hierarchical/diayn.py",
        "after, z = self.split(batch.next_observation)",
        "after, z = self.split(batch.observation)",
        "diayn::test_reward_is_that_of_the_discriminator_now",
        "diayn::test_discriminator_learns_from_the_whole_batch",
    ),
    mutation(
        "DIAYN: the stored reward is used",
        "hierarchical/diayn.py",
        "self.sac.update(batch._replace(reward=self.reward(after, z)))",
        "self.sac.update(batch)",
        "diayn::test_reward_is_that_of_the_discriminator_now",
    ),
    mutation(
        "DIAYN: q learns from single samples",
        "hierarchical/diayn.py",
        "self.discriminator_loss(after, z))",
        "self.discriminator_loss(after[:1], z[:1]))",
        "diayn::test_discriminator_learns_from_the_whole_batch",
    ),
    mutation(
        "DIAYN: q runs away from its skill",
        "hierarchical/diayn.py",
        "return -(self.discriminator(after) * z)",
        "return (self.discriminator(after) * z)",
        "diayn::test_discriminator_loss_is_the_cross_entropy",
    ),
    mutation(
        "DIAYN: q sees what it should not",
        "hierarchical/diayn.py",
        "self.layers(view[..., :SHOWN])",
        "self.layers(view[..., -SHOWN:])",
        "diayn::test_discriminator_sees_only_what_is_shown",
    ),
    mutation(
        "DIAYN: z is a raw number",
        "hierarchical/diayn.py",
        "torch.cat([self.view(state), z], -1)",
        "torch.cat([self.view(state), z * z.argmax(-1, keepdim=True)], -1)",
        "diayn::test_skill_is_one_hot_and_kept_through_an_episode",
    ),
    mutation(
        "DIAYN: z is drawn anew in each step",
        "hierarchical/diayn.py",
        "action = learner.act(path[-1], z)",
        "z = learner.draw_skills(config.bodies); action = learner.act(path[-1], z)",
        "diayn::test_skill_is_one_hot_and_kept_through_an_episode",
    ),
    mutation(
        "DIAYN: p(z) climbs the last reward alone",
        "hierarchical/diayn.py",
        "learner.reward(learner.view(path), z).sum(0)",
        "learner.reward(learner.view(path), z)[-1]",
        "diayn::test_prior_climbs_the_mean_return",
    ),
    mutation(
        "DIAYN: the policy's loss does not depend on the policy",
        "hierarchical/sac.py",
        "value = self.critics(observation, action).amin(0)",
        "value = self.critics(observation, action.detach()).amin(0)",
        "diayn::test_policy_is_trained_and_depends_on_the_skill",
    ),
    mutation(
        "DIAYN: the point's velocity is not cut off",
        "hierarchical/playgrounds.py",
        "np.clip(physics[:, 3:], -FASTEST, FASTEST)",
        "np.clip(physics[:, 3:], -9 * FASTEST, 9 * FASTEST)",
        "diayn::test_point_world_moves_as_the_environment",
    ),
    mutation(
        "DIAYN: the displacement has the other sign",
        "hierarchical/playgrounds.py",
        "state[:, :2] - first[:, :2]",
        "first[:, :2] - state[:, :2]",
        "diayn::test_displacement_is_counted_from_the_start",
    ),
    mutation(
        "DIAYN: the planner's vector stands for its smallest entry",
        "hierarchical/discovered.py",
        "F.one_hot(z.argmax(-1), self.skills)",
        "F.one_hot(z.argmin(-1), self.skills)",
        "diayn::test_outcomes_are_learnt_and_take_the_largest_entry",
    ),
    mutation(
        "DIAYN: outcomes forget where the skill began",
        "hierarchical/discovered.py",
        "return state + self.layers(",
        "return 0 * state + self.layers(",
        "diayn::test_outcomes_start_from_the_state",
    ),
]

LIVE_FIGURES = [
    mutation(
        "Live figures: the spread of the elites is divided by their number",
        "widgets/planner.js",
        "squares / (elites - 1)",
        "squares / elites",
        "live_figures::test_search_agrees_for_the_same_draws",
    ),
    mutation(
        "Live figures: momentum keeps nothing of the mean",
        "widgets/planner.js",
        "momentum * search.mean[i] +",
        "0 * search.mean[i] +",
        "live_figures::test_search_agrees_for_the_same_draws",
    ),
    mutation(
        "Live figures: the best candidate is not kept",
        "widgets/planner.js",
        "  candidates.set(search.best);\n",
        "",
        "live_figures::test_search_agrees_for_the_same_draws",
    ),
    mutation(
        "Live figures: the next search is not moved on",
        "widgets/planner.js",
        "last.best[i + size] : 0",
        "last.best[i] : 0",
        "live_figures::test_plans_agree_for_the_same_draws",
    ),
    mutation(
        "Live figures: support is a penalty where the data is",
        "widgets/planner.js",
        "softplus(-known[k])",
        "softplus(known[k])",
        "live_figures::test_plans_agree_for_the_same_draws",
    ),
    mutation(
        "Live figures: the penalty on ε is a sum over its dimensions",
        "widgets/planner.js",
        "(config.epsilon_penalty * squares) / size",
        "config.epsilon_penalty * squares",
        "live_figures::test_plans_agree_for_the_same_draws",
    ),
    mutation(
        "Live figures: all skills are whitened by the first state's prior",
        "widgets/planner.js",
        "l ? model.prior(current, count) : model.prior(state, 1)",
        "model.prior(l ? path[0] : state, l ? count : 1)",
        "live_figures::test_plans_agree_for_the_same_draws",
    ),
    mutation(
        "Live figures: the world model's change is in units of its spread",
        "widgets/networks.js",
        "states[i] + delta[i % dims] * loc[i]",
        "states[i] + loc[i]",
        "live_figures::test_networks_agree",
    ),
    mutation(
        "Live figures: a wave of y is one of x",
        "widgets/networks.js",
        "Math.sin(phase * states[state + 1])",
        "Math.sin(phase * states[state])",
        "live_figures::test_networks_agree",
    ),
    mutation(
        "Live figures: negative numbers of half precision lose their sign",
        "widgets/weights.js",
        "bits & 0x8000 ? -size : size",
        "size",
        "live_figures::test_networks_agree",
    ),
    mutation(
        "Live figures: the ball is not damped",
        "widgets/point.js",
        "- DAMPING * velocity[i]",
        "- 0 * velocity[i]",
        "live_figures::test_point_moves_as_in_mujoco",
    ),
    mutation(
        "Live figures: the ball's velocity is not clipped",
        "widgets/point.js",
        "[clip(state[2], FASTEST), clip(state[3], FASTEST)]",
        "[state[2], state[3]]",
        "live_figures::test_point_moves_as_in_mujoco",
    ),
    mutation(
        "Live figures: walls also pull",
        "widgets/point.js",
        "Math.max(row.push + missing / (1 / MASS + row.soft), 0)",
        "row.push + missing / (1 / MASS + row.soft)",
        "live_figures::test_point_moves_as_in_mujoco",
    ),
    mutation(
        "Live figures: the action term forgets the width of q",
        "widgets/bound.js",
        "steps * gain ** 2 * (m ** 2 + s ** 2)",
        "steps * gain ** 2 * m ** 2",
        "live_figures::test_terms_of_the_bound_are_those_of_the_closed_form",
    ),
    mutation(
        "Live figures: a slip also carries out the chosen move",
        "widgets/options.js",
        "(slip / 3) * (all - share)",
        "(slip / 4) * all",
        "live_parts::test_an_option_leads_where_its_model_says",
    ),
    mutation(
        "Live figures: the goal pays one step too late",
        "widgets/options.js",
        "reward += gamma ** (k - 1) * chance",
        "reward += gamma ** k * chance",
        "live_parts::test_an_option_leads_where_its_model_says",
    ),
    mutation(
        "Live figures: an option's end is not discounted",
        "widgets/options.js",
        "arrival[s] += gamma ** k * beta * chance",
        "arrival[s] += beta * chance",
        "live_parts::test_an_option_leads_where_its_model_says",
    ),
    mutation(
        "Live figures: all levels hear the first command",
        "widgets/feudal.js",
        "5 * area + chain[chain.length - 1]",
        "5 * area + chain[0]",
        "live_parts::test_commands_follow_from_the_tables",
    ),
    mutation(
        "Live figures: a skill's action is not squashed",
        "widgets/diayn.js",
        "Math.tanh(out[i] + (normal ? std * normal() : 0))",
        "out[i] + (normal ? std * normal() : 0)",
        "live_parts::test_drawn_actions_of_the_square_are_the_policys",
    ),
    mutation(
        "Live figures: the last layer has a ReLU too",
        "widgets/layers.js",
        "return i < numbers.length - 1 ? y.map",
        "return i < numbers.length ? y.map",
        "live_parts::test_skills_of_the_square_go_where_the_policy_goes",
    ),
    mutation(
        "Live figures: the forget gate of the memory is its input gate",
        "widgets/dream.js",
        "sigmoid(gate(1, i)) * c",
        "sigmoid(gate(0, i)) * c",
        "live_parts::test_dreams_agree_for_the_same_draws",
    ),
    mutation(
        "Live figures: the noise of a dream is multiplied by τ",
        "widgets/dream.js",
        "Math.sqrt(tau) * std[i][k] * normal()",
        "tau * std[i][k] * normal()",
        "live_parts::test_dreams_agree_for_the_same_draws",
    ),
    mutation(
        "Live figures: a dream's choice of a part ignores τ",
        "widgets/dream.js",
        "return logit / tau - Math.log(-Math.log(u));",
        "return logit - Math.log(-Math.log(u));",
        "live_parts::test_dreams_agree_for_the_same_draws",
    ),
    mutation(
        "Live figures: the density's parts get τ for √τ",
        "widgets/dream.js",
        "const width = Math.sqrt(tau) * std[i][k];",
        "const width = tau * std[i][k];",
        "live_parts::test_the_density_is_the_mixtures_and_tempers_its_parts",
    ),
    mutation(
        "Live figures: the last n-step return is weighed like the others",
        "widgets/returns.js",
        "(i < count - 1 ? 1 - lam : 1) * lam ** i",
        "(1 - lam) * lam ** i",
        "live_parts::test_lambda_returns_agree_and_are_means_of_step_returns",
    ),
    mutation(
        "Live figures: an episode ends a step too late",
        "widgets/returns.js",
        "n === end - 1 ? 0 : gamma",
        "n === end ? 0 : gamma",
        "live_parts::test_lambda_returns_agree_and_are_means_of_step_returns",
    ),
    mutation(
        "Live figures: the prior gets the posterior's share of the divergence",
        "widgets/balance.js",
        "alpha * weight * (p[c] - share)",
        "(1 - alpha) * weight * (p[c] - share)",
        "live_parts::test_the_balanced_gradients_are_those_of_autograd",
    ),
    mutation(
        "Live figures: the posterior's gradient is not centred",
        "widgets/balance.js",
        "weight * (ratio[c] - kl)",
        "weight * ratio[c]",
        "live_parts::test_the_balanced_gradients_are_those_of_autograd",
    ),
    mutation(
        "Live figures: the weights of two bins are swapped",
        "widgets/twohot.js",
        "code[low] = 1 - weight;\n  code[low + 1] = weight;",
        "code[low] = weight;\n  code[low + 1] = 1 - weight;",
        "live_parts::test_codes_and_what_they_stand_for_agree",
    ),
    mutation(
        "Live figures: a mean in symlog space is not expanded",
        "widgets/twohot.js",
        'return space === "values" ? mean : symexp(mean);',
        "return mean;",
        "live_parts::test_codes_and_what_they_stand_for_agree",
    ),
]

WORLD_MODELS = [
    mutation(
        "temperature: logits are left as they are",
        "latent/mdn_rnn.py",
        "self.logits / temperature -",
        "self.logits -",
        "world_models::test_temperature_scales_weights_and_noise",
    ),
    mutation(
        "temperature: noise times τ",
        "latent/mdn_rnn.py",
        "math.sqrt(temperature) * log_std.exp()",
        "temperature * log_std.exp()",
        "world_models::test_temperature_scales_weights_and_noise",
    ),
    mutation(
        "temperature: noise is left as it is",
        "latent/mdn_rnn.py",
        "math.sqrt(temperature) * log_std.exp()",
        "log_std.exp()",
        "world_models::test_temperature_scales_weights_and_noise",
    ),
    mutation(
        "mixture: dimensions of a group are averaged",
        "latent/mdn_rnn.py",
        ".sum(-2)  # (..., G, K)",
        ".mean(-2)",
        "world_models::test_the_density_of_a_mixture_is_that_of_torch",
    ),
    mutation(
        "mixture: weights are not normalised",
        "latent/mdn_rnn.py",
        "(self.logits.log_softmax(-1) + groups)",
        "(self.logits + groups)",
        "world_models::test_the_density_of_a_mixture_is_that_of_torch",
    ),
    mutation(
        "mixture: no log-scale",
        "latent/mdn_rnn.py",
        "-0.5 * scaled.square() - self.log_std",
        "-0.5 * scaled.square()",
        "world_models::test_the_density_of_a_mixture_is_that_of_torch",
    ),
    mutation(
        "V: mean over pixels",
        "latent/vae.py",
        ".square().sum((1, 2))  # (B,)",
        ".square().mean((1, 2))",
        "world_models::test_the_loss_of_v_is_the_elbo_with_sums_over_pixels",
    ),
    mutation(
        "V: mean over the code's dimensions",
        "latent/vae.py",
        "kl = gaussian_kl(q, prior).sum(-1)  # (B,)",
        "kl = gaussian_kl(q, prior).mean(-1)",
        "world_models::test_the_loss_of_v_is_the_elbo_with_sums_over_pixels",
    ),
    mutation(
        "V: the tolerance is a ceiling",
        "latent/vae.py",
        "kl.clamp(min=free)",
        "kl.clamp(max=free)",
        "world_models::test_nats_below_the_tolerance_are_free",
    ),
    mutation(
        "M: targets are the means of V",
        "latent/mdn_rnn.py",
        "targets.append(z[1:])",
        "targets.append(self.mean[i][1:])",
        "world_models::test_codes_are_drawn_anew_for_each_batch",
    ),
    mutation(
        "M: the target is the input",
        "latent/mdn_rnn.py",
        "targets.append(z[1:])",
        "targets.append(z[:-1])",
        "world_models::test_inputs_and_targets_are_a_step_apart",
    ),
    mutation(
        "M: the action of the step before",
        "latent/mdn_rnn.py",
        "torch.cat([z[:-1], self.action[i]], -1)",
        "torch.cat([z[:-1], self.action[i].roll(1, 0)], -1)",
        "world_models::test_inputs_and_targets_are_a_step_apart",
    ),
    mutation(
        "M: one memory runs through all episodes of a batch",
        "latent/mdn_rnn.py",
        "h = self.lstm(inputs)[0].data  # steps of all rows in one line, (n, H)",
        "h = self.lstm(inputs.data)[0]",
        "world_models::test_each_episode_begins_with_an_empty_memory",
    ),
    mutation(
        "M: an episode begins with something in memory",
        "latent/mdn_rnn.py",
        "return torch.zeros(count, self.config.hidden), torch.zeros(count, self.config.hidden)",
        "return torch.ones(count, self.config.hidden), torch.zeros(count, self.config.hidden)",
        "world_models::test_c_sees_a_memory_of_all_that_was_before_and_nothing_else",
    ),
    mutation(
        "M: the end is left out of the loss",
        "latent/mdn_rnn.py",
        "return end - self.predict(h).log_prob(z.data).mean()",
        "return -self.predict(h).log_prob(z.data).mean()",
        "world_models::test_the_loss_of_m_is_minus_the_likelihood_of_code_and_end",
    ),
    mutation(
        "reality: C sees the memory of its own action",
        "latent/controller.py",
        "action = act(rules, z, memory[0])\n"
        "        memory = model.memory.remember(memory, z, action)",
        "memory = model.memory.remember(memory, z, act(rules, z, memory[0]))\n"
        "        action = act(rules, z, memory[0])",
        "world_models::test_c_sees_a_memory_of_all_that_was_before_and_nothing_else",
    ),
    mutation(
        "reality: who was hit plays on",
        "latent/controller.py",
        "alive &= ~games.step(action.numpy())",
        "alive = ~games.step(action.numpy())",
        "world_models::test_steps_in_reality_are_those_until_the_first_hit",
    ),
    mutation(
        "dream: nobody dies",
        "latent/controller.py",
        "alive &= torch.rand(count, generator=generator) >= ends",
        "alive &= torch.rand(count, generator=generator) >= 0 * ends",
        "world_models::test_a_dream_ends_where_the_memory_says_so",
    ),
    mutation(
        "dream: ends where it should go on",
        "latent/controller.py",
        ">= ends",
        "< ends",
        "world_models::test_a_dream_ends_where_the_memory_says_so",
    ),
    mutation(
        "C: left is right",
        "latent/controller.py",
        "(score > 1 / 3).long() - (score < -1 / 3).long()",
        "(score < -1 / 3).long() - (score > 1 / 3).long()",
        "world_models::test_a_rule_is_linear_and_has_a_dead_zone",
    ),
    mutation(
        "evolution: the return is minimised",
        "latent/controller.py",
        "search.tell(rules, (-lived).tolist())",
        "search.tell(rules, lived.tolist())",
        "world_models::test_evolution_climbs",
    ),
    mutation(
        "stones: aimed at nobody",
        "latent/stones.py",
        "aim = self.player + self.rng",
        "aim = SIDE / 2 + self.rng",
        "world_models::test_stones_are_aimed_at_the_player_of_the_throw",
    ),
    mutation(
        "recordings: one picture too few",
        "latent/vision_memory.py",
        "<= lived[:, None]",
        "< lived[:, None]",
        "world_models::test_recordings_end_with_the_hit",
    ),
]

DREAMER_V3 = [
    mutation(
        "two-hot: the weights are swapped",
        "latent/twohot.py",
        "weight = (x - bins[low]) /",
        "weight = (bins[low + 1] - x) /",
        "twohot::test_encoding_is_that_of_brute_force",
        "twohot::test_the_mean_of_an_encoding_is_the_number",
    ),
    mutation(
        "two-hot: numbers beyond the ends get weights beyond 1",
        "latent/twohot.py",
        "return low, weight.clamp(0, 1)",
        "return low, weight",
        "twohot::test_encoding_is_that_of_brute_force",
    ),
    mutation(
        "two-hot: numbers before the last bin are cut off",
        "latent/twohot.py",
        ".clamp(0, len(bins) - 2)",
        ".clamp(0, len(bins) - 3)",
        "twohot::test_encoding_is_that_of_brute_force",
        "twohot::test_the_mean_of_an_encoding_is_the_number",
    ),
    mutation(
        "two-hot: bins in symlog space",
        "latent/twohot.py",
        "half = symexp(torch.linspace(0, extent, count // 2 + 1))",
        "half = torch.linspace(0, extent, count // 2 + 1)",
        "twohot::test_bins_are_symexp_of_even_steps_and_mirror_each_other",
        "twohot::test_a_two_hot_head_starts_at_zero_and_learns_a_mean",
    ),
    mutation(
        "two-hot: the loss forgets the upper bin",
        "latent/twohot.py",
        " - weight * both[..., 1]",
        "",
        "twohot::test_loss_is_cross_entropy_with_the_encoding",
    ),
    mutation(
        "two-hot: a plain sum over bins",
        "latent/twohot.py",
        "return (p[..., half + 1 :] - p[..., :half].flip(-1)) @ bins[half + 1 :]",
        "return (p * bins).sum(-1)",
        "twohot::test_the_mean_is_exactly_zero_where_mirrored_bins_weigh_the_same",
    ),
    mutation(
        "two-hot: mirrored bins are not mirrored",
        "latent/twohot.py",
        "p[..., :half].flip(-1))",
        "p[..., :half])",
        "twohot::test_the_mean_is_the_sum_over_bins",
    ),
    mutation(
        "two-hot: the head does not start at 0",
        "latent/twohot.py",
        "        nn.init.zeros_(self.network[-1].weight)\n",
        "",
        "twohot::test_a_two_hot_head_starts_at_zero_and_learns_a_mean",
    ),
    mutation(
        "symexp is not the inverse of symlog",
        "latent/twohot.py",
        "x.abs().expm1()",
        "x.abs().exp()",
        "twohot::test_symexp_undoes_symlog",
    ),
    mutation(
        "symlog loses the sign",
        "latent/twohot.py",
        "return x.sign() * x.abs().log1p()",
        "return x.abs().log1p()",
        "twohot::test_symexp_undoes_symlog",
        "twohot::test_derivative_of_symlog",
    ),
    mutation(
        "DreamerV3: block GRU without the −1",
        "latent/dreamer_v3.py",
        "torch.sigmoid(update - 1)",
        "torch.sigmoid(update)",
        "dreamer_v3::test_block_gru_is_a_gru_of_each_block",
        "dreamer_v3::test_block_gru_with_zero_weights_keeps_most_of_h",
    ),
    mutation(
        "DreamerV3: block GRU turns its gate round",
        "latent/dreamer_v3.py",
        "update * candidate + (1 - update) * parts",
        "(1 - update) * candidate + update * parts",
        "dreamer_v3::test_block_gru_is_a_gru_of_each_block",
        "dreamer_v3::test_block_gru_with_zero_weights_keeps_most_of_h",
    ),
    mutation(
        "DreamerV3: the reset gate is left out",
        "latent/dreamer_v3.py",
        "torch.tanh(torch.sigmoid(reset) * candidate)",
        "torch.tanh(candidate)",
        "dreamer_v3::test_block_gru_is_a_gru_of_each_block",
    ),
    mutation(
        "DreamerV3: the GRU's input does not see h",
        "latent/dreamer_v3.py",
        "action.clamp(-1, 1), state.h], -1)",
        "action.clamp(-1, 1), 0 * state.h], -1)",
        "dreamer_v3::test_blocks_do_not_see_each_other_but_through_the_input",
    ),
    mutation(
        "DreamerV3: the model sees actions that are not cut off",
        "latent/dreamer_v3.py",
        "torch.cat([state.z, action.clamp(-1, 1), state.h], -1)",
        "torch.cat([state.z, action, state.h], -1)",
        "dreamer_v3::test_the_model_sees_actions_cut_off",
    ),
    mutation(
        "DreamerV3: dynamics and representation are swapped",
        "latent/dreamer_v3.py",
        "c.dynamics * dynamics + c.representation * representation",
        "c.representation * dynamics + c.dynamics * representation",
        "dreamer_v3::test_divergence_weighs_dynamics_ten_times_as_much_as_representation",
    ),
    mutation(
        "DreamerV3: the wrong half is stopped",
        "latent/dreamer_v3.py",
        "dynamics = self.latent.kl(posterior.detach(), prior)",
        "dynamics = self.latent.kl(posterior, prior.detach())",
        "dreamer_v3::test_divergence_weighs_dynamics_ten_times_as_much_as_representation",
    ),
    mutation(
        "DreamerV3: one half has no free nats",
        "latent/dreamer_v3.py",
        "representation = self.latent.kl(posterior, prior.detach()).clamp_min(c.free_nats)",
        "representation = self.latent.kl(posterior, prior.detach())",
        "dreamer_v3::test_nats_are_free_after_the_sum_over_groups_and_in_each_half",
    ),
    mutation(
        "DreamerV3: free nats are split among the groups",
        "latent/rssm.py",
        "return (q.exp() * (q - p)).sum((-2, -1))",
        "return (q.exp() * (q - p)).sum(-1).clamp_min(1).sum(-1)",
        "dreamer_v3::test_nats_are_free_after_the_sum_over_groups_and_in_each_half",
    ),
    mutation(
        "DreamerV3: no classes are mixed in",
        "latent/rssm.py",
        "return (1 - self.uniform) * logits.softmax(-1) + self.uniform / self.classes",
        "return logits.softmax(-1)",
        "dreamer_v3::test_unimix_bounds_probabilities_and_divergence",
    ),
    mutation(
        "DreamerV3: small spreads are blown up",
        "latent/dreamer_v3.py",
        "return max(1.0, self.spread / self.seen)",
        "return max(1e-8, self.spread / self.seen)",
        "dreamer_v3::test_return_scale_is_a_mean_of_spreads_and_never_below_one",
    ),
    mutation(
        "DreamerV3: the spread is that of the extremes",
        "latent/dreamer_v3.py",
        "torch.tensor([0.05, 0.95])",
        "torch.tensor([0.0, 1.0])",
        "dreamer_v3::test_return_scale_is_a_mean_of_spreads_and_never_below_one",
        "dreamer_v3::test_return_scale_is_not_moved_by_a_few_extremes",
    ),
    mutation(
        "DreamerV3: the scale forgets all but the last spread",
        "latent/dreamer_v3.py",
        "self.spread += self.rate * (high - low - self.spread)",
        "self.spread = self.seen * (high - low)",
        "dreamer_v3::test_return_scale_is_a_mean_of_spreads_and_never_below_one",
    ),
    mutation(
        "DreamerV3: advantages are not divided",
        "latent/dreamer_v3.py",
        "(dream.returns - dream.value[:, :-1]) / scale",
        "(dream.returns - dream.value[:, :-1])",
        "dreamer_v3::test_advantages_are_divided_by_the_scale",
    ),
    mutation(
        "DreamerV3: the advantage is not detached",
        "latent/dreamer_v3.py",
        "advantage.detach() * policy",
        "advantage * policy",
        "dreamer_v3::test_reinforce_is_that_of_each_step",
    ),
    mutation(
        "DreamerV3: REINFORCE goes down",
        "latent/dreamer_v3.py",
        "return -(weight * gain).mean()",
        "return (weight * gain).mean()",
        "dreamer_v3::test_reinforce_is_that_of_each_step",
    ),
    mutation(
        "DreamerV3: actions are scored where they lead",
        "latent/dreamer_v3.py",
        "features = dream.trajectory.states.features[:, :-1]",
        "features = dream.trajectory.states.features[:, 1:]",
        "dreamer_v3::test_actor_learns_from_states_in_which_it_acted",
    ),
    mutation(
        "DreamerV3: the baseline is the value after the action",
        "latent/dreamer_v3.py",
        "dream.value[:, :-1])",
        "dream.value[:, 1:])",
        "dreamer_v3::test_actor_learns_from_states_in_which_it_acted",
    ),
    mutation(
        "DreamerV3: the reward is that of the state before",
        "latent/dreamer_v3.py",
        "reward = self.model.predict_reward(features[:, 1:])",
        "reward = self.model.predict_reward(features[:, :-1])",
        "dreamer_v3::test_a_dream_pays_for_arriving_and_stops_where_episodes_end",
    ),
    mutation(
        "DreamerV3: dreams go on after the end",
        "latent/dreamer_v3.py",
        "torch.cat([alive[:, None], discount",
        "torch.cat([torch.ones_like(alive)[:, None], discount",
        "dreamer_v3::test_a_dream_pays_for_arriving_and_stops_where_episodes_end",
    ),
    mutation(
        "DreamerV3: replayed returns take the reward before the action",
        "latent/dreamer_v3.py",
        "following = batch.reward[:, t] + discount",
        "following = batch.reward[:, t - 1] + discount",
        "dreamer_v3::test_replayed_returns_by_hand",
    ),
    mutation(
        "DreamerV3: replayed returns run on into the next episode",
        "latent/dreamer_v3.py",
        "share = lam * (1 - last)",
        "share = lam * torch.ones_like(last)",
        "dreamer_v3::test_replayed_returns_by_hand",
    ),
    mutation(
        "DreamerV3: rows before a new episode count",
        "latent/dreamer_v3.py",
        "loss = follows * self.critic_loss(",
        "loss = self.critic_loss(",
        "dreamer_v3::test_rows_before_a_new_episode_teach_the_critic_nothing",
    ),
    mutation(
        "DreamerV3: the slow critic is a copy",
        "latent/dreamer_v3.py",
        "slow.lerp_(new, self.config.slow_rate)",
        "slow.copy_(new)",
        "dreamer_v3::test_the_slow_critic_follows_at_its_rate",
    ),
    mutation(
        "DreamerV3: the critic is not drawn to its slow copy",
        "latent/dreamer_v3.py",
        "return self.critic.loss(output, returns) + self.critic.loss(output, slow)",
        "return self.critic.loss(output, returns)",
        "dreamer_v3::test_the_critic_is_drawn_to_its_slow_copy",
    ),
    mutation(
        "DreamerV3: the critic teaches the world model",
        "latent/dreamer_v3.py",
        "        states = states.detach()\n",
        "",
        "dreamer_v3::test_actor_and_critic_teach_the_world_model_nothing",
    ),
    mutation(
        "DreamerV3: observations are seen as they are",
        "latent/dreamer_v3.py",
        "return symlog(observation)",
        "return observation",
        "dreamer_v3::test_with_the_heads_of_v3_observations_and_rewards_may_be_large",
        "dreamer_v3::test_predicted_observations_are_in_their_own_units",
    ),
    mutation(
        "DreamerV3: predicted observations stay squashed",
        "latent/dreamer_v3.py",
        "return symexp(super().predict_observation(features))",
        "return super().predict_observation(features)",
        "dreamer_v3::test_predicted_observations_are_in_their_own_units",
    ),
    mutation(
        "DreamerV3: the weight of observations counts twice",
        "latent/dreamer_v3.py",
        "return gaussian_error(squashed, self.squash(observation), axes)",
        "return self.config.observation_scale * gaussian_error(\n"
        "            squashed, self.squash(observation), axes\n"
        "        )",
        "dreamer_v3::test_the_weight_of_observations_counts_once",
        "dreamer_v3::test_predicted_observations_are_in_their_own_units",
    ),
    mutation(
        "DreamerV3: closeness falls from the goal on",
        "latent/dreamer_v3.py",
        "max(0.0, distance - NEAR)",
        "max(0.0, distance)",
        "dreamer_v3::test_closeness_is_one_near_the_goal_and_a_tenth_at_the_margin",
    ),
    mutation(
        "DreamerV3: rewards are not scaled",
        "latent/dreamer_v3.py",
        "scale * closeness(-reward)",
        "closeness(-reward)",
        "dreamer_v3::test_rewards_are_closeness_times_the_scale",
    ),
    mutation(
        "studies: the last runs replace the others",
        "studies.py",
        "[*finished_runs(path), *runs]",
        "runs",
        "studies::test_runs_are_added_after_those_that_are_there",
    ),
    mutation(
        "DreamerV3: the learning rate stays",
        "latent/dreamer_v3.py",
        "        rate.step()\n",
        "",
        "dreamer_v3::test_a_short_training_acts_learns_and_evaluates",
    ),
]

LATENT = [
    mutation(
        "RSSM: KL, the scales are swapped",
        "latent/rssm.py",
        "ratio, shift = (q_std / p_std).square()",
        "ratio, shift = (p_std / q_std).square()",
        "rssm::test_divergence_and_density_are_those_of_torch",
    ),
    mutation(
        "RSSM: KL, the means are apart in units of q",
        "latent/rssm.py",
        "((q_mean - p_mean) / p_std)",
        "((q_mean - p_mean) / q_std)",
        "rssm::test_divergence_and_density_are_those_of_torch",
    ),
    mutation(
        "RSSM: KL of categories the other way round",
        "latent/rssm.py",
        "return (q.exp() * (q - p)).sum((-2, -1))",
        "return (p.exp() * (p - q)).sum((-2, -1))",
        "rssm::test_divergence_and_density_are_those_of_torch",
    ),
    mutation(
        "RSSM: a mean over categories",
        "latent/rssm.py",
        "return (q.exp() * (q - p)).sum((-2, -1))",
        "return (q.exp() * (q - p)).sum(-1).mean(-1)",
        "rssm::test_divergence_and_density_are_those_of_torch",
    ),
    mutation(
        "RSSM: the uniform share is not mixed in",
        "latent/rssm.py",
        "return (1 - self.uniform) * logits.softmax(-1) + self.uniform / self.classes",
        "return logits.softmax(-1)",
        "rssm::test_divergence_and_density_are_those_of_torch",
    ),
    mutation(
        "RSSM: a probability that rounds to nothing",
        "latent/rssm.py",
        "log_softmax(-1)",
        "softmax(-1).log()",
        "rssm::test_a_probability_that_rounds_to_nothing_has_a_finite_logarithm",
    ),
    mutation(
        "RSSM: the least width is left out of a sample",
        "latent/rssm.py",
        "return mean, F.softplus(raw) + self.least_std",
        "return mean, F.softplus(raw)",
        "rssm::test_divergence_and_density_are_those_of_torch",
        "rssm::test_samples_have_the_moments_of_their_distribution",
    ),
    mutation(
        "RSSM: a sample without a gradient to its width",
        "latent/rssm.py",
        "return mean + std * torch.randn(",
        "return mean + std.detach() * torch.randn(",
        "rssm::test_a_gaussian_sample_has_the_gradient_of_its_reparametrisation",
    ),
    mutation(
        "RSSM: a start keeps the state",
        "latent/rssm.py",
        "self.advance(State(*(part * keep for part in state)), action * keep)",
        "self.advance(state, action * keep)",
        "rssm::test_a_start_in_the_middle_forgets_the_past",
        "acting::test_the_drivers_state_is_that_of_a_fresh_filter_after_a_start",
    ),
    mutation(
        "RSSM: a start keeps the action",
        "latent/rssm.py",
        "for part in state)), action * keep)",
        "for part in state)), action)",
        "rssm::test_the_first_row_of_a_sequence_knows_no_action",
    ),
    mutation(
        "RSSM: the mask is the other way round",
        "latent/rssm.py",
        "keep = (1 - is_first)[:, None]",
        "keep = is_first[:, None]",
        "rssm::test_a_start_in_the_middle_forgets_the_past",
        "rssm::test_observe_is_one_step_after_the_other",
    ),
    mutation(
        "RSSM: the first row is no start",
        "latent/rssm.py",
        "is_first = torch.cat([torch.ones_like(is_first[:, :1]), is_first[:, 1:]], 1)",
        "is_first = is_first + 0",
        "rssm::test_the_first_row_of_a_sequence_knows_no_action",
    ),
    mutation(
        "RSSM: the prior is that of the next state",
        "latent/rssm.py",
        "parameters), self.prior(h)",
        "parameters), self.prior(self.advance(state, action))",
        "rssm::test_a_start_in_the_middle_forgets_the_past",
        "rssm::test_observe_is_one_step_after_the_other",
    ),
    mutation(
        "RSSM: the posterior sees no observation",
        "latent/rssm.py",
        "parameters = self.posterior(torch.cat([h, embedding], -1))",
        "parameters = self.posterior(torch.cat([h, 0 * embedding], -1))",
        "rssm::test_the_past_reaches_the_present_and_the_future_does_not",
        "rssm::test_observe_is_one_step_after_the_other",
    ),
    mutation(
        "RSSM: imagination does not go on from its last state",
        "latent/rssm.py",
        "state = self.imagine_step(state, each, generator)",
        "state = self.imagine_step(states[0] if states else state, each, generator)",
        "rssm::test_imagination_is_the_prior_step_by_step",
    ),
    mutation(
        "RSSM: features without z",
        "latent/rssm.py",
        "return torch.cat([self.h, self.z], -1)",
        "return torch.cat([self.h, 0 * self.z], -1)",
        "rssm::test_states_are_stacked_flattened_and_cut",
    ),
    mutation(
        "replay: windows go from the newest row to the oldest",
        "latent/replay.py",
        "oldest = self.added - len(self)",
        "oldest = 0",
        "replay::test_windows_are_consecutive_rows_of_one_environment",
        "acting::test_a_row_holds_the_action_that_led_to_its_observation",
    ),
    mutation(
        "replay: the last start is left out",
        "latent/replay.py",
        "torch.randint(len(self) - length + 1,",
        "torch.randint(max(1, len(self) - length),",
        "replay::test_windows_are_consecutive_rows_of_one_environment",
    ),
    mutation(
        "replay: a row of time from several environments",
        "latent/replay.py",
        "column = torch.randint(environments, (batch, 1)",
        "column = torch.randint(environments, (batch, length)",
        "replay::test_windows_are_consecutive_rows_of_one_environment",
    ),
    mutation(
        "replay: the buffer is longer than it says",
        "latent/replay.py",
        "return min(self.added, self.capacity)",
        "return self.added",
        "replay::test_windows_are_consecutive_rows_of_one_environment",
    ),
    mutation(
        "replay: a window longer than what is there",
        "latent/replay.py",
        "            length <= len(self),",
        "            length <= self.capacity,",
        "replay::test_a_window_longer_than_what_is_there_is_refused",
    ),
    mutation(
        "acting: a row holds the action that follows",
        "latent/acting.py",
        "        return seen\n",
        "        return seen._replace(action=action)\n",
        "acting::test_a_row_holds_the_action_that_led_to_its_observation",
    ),
    mutation(
        "acting: a row holds the reward that follows",
        "latent/acting.py",
        "        return seen\n",
        "        return seen._replace(reward=self.row.reward)\n",
        "acting::test_a_row_holds_the_action_that_led_to_its_observation",
    ),
    mutation(
        "acting: the ignored action is stored at a start",
        "latent/acting.py",
        "action * keep[:, None],",
        "action,",
        "acting::test_a_row_holds_the_action_that_led_to_its_observation",
    ),
    mutation(
        "acting: the start is marked a row too soon",
        "latent/acting.py",
        "            is_first,\n            torch.as_tensor(terminated",
        "            self.over,\n            torch.as_tensor(terminated",
        "acting::test_a_row_holds_the_action_that_led_to_its_observation",
        "acting::test_the_drivers_state_is_that_of_a_fresh_filter_after_a_start",
    ),
    mutation(
        "acting: a time limit is a terminal row",
        "latent/acting.py",
        "torch.as_tensor(terminated, dtype=torch.float32),\n        )",
        "self.over,\n        )",
        "acting::test_a_row_holds_the_action_that_led_to_its_observation",
    ),
    mutation(
        "acting: the filter sees the previous observation's action",
        "latent/acting.py",
        "self.state, seen.action, seen.is_first, embedding",
        "self.state, 0 * seen.action, seen.is_first, embedding",
        "acting::test_the_agent_sees_the_filtered_state_and_the_noise_of_exploration_is_asked_for",
    ),
    mutation(
        "acting: evaluation goes on after the end",
        "latent/acting.py",
        "running = running * (1 - driver.over)",
        "running = running * (1 - driver.over.min())",
        "acting::test_evaluate_counts_exactly_one_episode",
    ),
    mutation(
        "acting: evaluation leaves out the last step",
        "latent/acting.py",
        "total += running * driver.row.reward",
        "total += running * (1 - driver.over) * driver.row.reward",
        "acting::test_evaluate_counts_exactly_one_episode",
    ),
    mutation(
        "acting: evaluation explores",
        "latent/acting.py",
        "driver.step(agent, explore=False)",
        "driver.step(agent, explore=True)",
        "acting::test_the_agent_sees_the_filtered_state_and_the_noise_of_exploration_is_asked_for",
    ),
    mutation(
        "world model: a mean over pixels",
        "latent/world_model.py",
        "error.flatten(-axes).sum(-1) if axes",
        "error.flatten(-axes).mean(-1) if axes",
        "world_model::test_the_observations_term_is_a_sum_over_all_its_numbers",
    ),
    mutation(
        "world model: no half in the error",
        "latent/world_model.py",
        "error = 0.5 * (prediction",
        "error = (prediction",
        "world_model::test_the_observations_term_is_a_sum_over_all_its_numbers",
        "world_model::test_reward_and_continuation_are_likelihoods",
    ),
    mutation(
        "world model: the continuation is the end",
        "latent/world_model.py",
        "binary_cross_entropy_with_logits(logits, 1 - is_terminal",
        "binary_cross_entropy_with_logits(logits, is_terminal",
        "world_model::test_reward_and_continuation_are_likelihoods",
    ),
    mutation(
        "world model: free nats are taken from the mean",
        "latent/world_model.py",
        "return self.latent.kl(posterior, prior).clamp_min(self.config.free_nats)",
        "kl = self.latent.kl(posterior, prior)\n"
        "        return kl.mean().clamp_min(self.config.free_nats).expand_as(kl)",
        "world_model::test_free_nats_are_taken_step_by_step_and_not_from_the_mean",
    ),
    mutation(
        "world model: divergence of the prior from the posterior",
        "latent/world_model.py",
        "return self.latent.kl(posterior, prior).clamp_min",
        "return self.latent.kl(prior, posterior).clamp_min",
        "world_model::test_the_divergence_is_of_the_posterior_from_the_prior",
    ),
    mutation(
        "world model: the weight of the observation is lost",
        "latent/world_model.py",
        "self.config.observation_scale * self.observation_loss",
        "self.observation_loss",
        "world_model::test_weights_scale_their_terms_alone",
    ),
    mutation(
        "world model: the divergence is left out of the loss",
        "latent/world_model.py",
        "self.continuation + self.divergence).mean()",
        "self.continuation).mean()",
        "world_model::test_the_loss_is_the_mean_of_what_is_descended",
    ),
    mutation(
        "point: a wall does not take the velocity",
        "latent/environments.py",
        "        self.velocity[self.position != wanted] = 0.0\n",
        "",
        "environments::test_a_wall_stops_the_point_across_and_not_along",
    ),
    mutation(
        "point: moves by the velocity before the push",
        "latent/environments.py",
        "wanted = self.position + self.velocity",
        "wanted = self.position + (self.velocity - PUSH * push) / DRAG",
        "environments::test_the_point_moves_as_its_equation_says",
    ),
    mutation(
        "pictures: up is down",
        "latent/environments.py",
        "(pixels[::-1] - centres[..., 1:])",
        "(pixels - centres[..., 1:])",
        "environments::test_a_spot_is_a_gaussian_where_it_should_be",
    ),
    mutation(
        "pictures: overlapping spots are added",
        "latent/environments.py",
        "* spots).max(-3)",
        "* spots).sum(-3)",
        "environments::test_a_spot_is_a_gaussian_where_it_should_be",
    ),
    mutation(
        "held action: only the last reward",
        "latent/environments.py",
        "total += float(reward)",
        "total = float(reward)",
        "environments::test_a_held_action_adds_rewards_and_stops_at_the_end",
    ),
    mutation(
        "held action: goes on after the end",
        "latent/environments.py",
        "            if terminated or truncated:\n                break\n",
        "",
        "environments::test_a_held_action_adds_rewards_and_stops_at_the_end",
    ),
    mutation(
        "PlaNet: problems and candidates are mixed up",
        "latent/planet.py",
        "part.repeat_interleave(candidates, 0)",
        "part.repeat(candidates, 1)",
        "planet::test_imagined_return_is_the_sum_of_each_candidates_own_rewards",
    ),
    mutation(
        "PlaNet: time is taken for candidates",
        "latent/planet.py",
        "start, actions.flatten(0, 1).clamp(-1, 1)",
        "start, actions.transpose(1, 2).reshape(-1, *actions.shape[2:]).clamp(-1, 1)",
        "planet::test_imagined_return_is_the_sum_of_each_candidates_own_rewards",
        "planet::test_the_plan_has_its_own_optimum_in_each_step_and_problem",
    ),
    mutation(
        "PlaNet: only the last reward counts",
        "latent/planet.py",
        "model.predict_reward(states.features).sum(-1)",
        "model.predict_reward(states.features)[:, -1]",
        "planet::test_the_plan_has_its_own_optimum_in_each_step_and_problem",
    ),
    mutation(
        "PlaNet: the return is minimised",
        "latent/planet.py",
        "return -imagined_return(",
        "return imagined_return(",
        "planet::test_the_plan_has_its_own_optimum_in_each_step_and_problem",
    ),
    mutation(
        "PlaNet: the best candidate acts",
        "latent/planet.py",
        ".mean[:, 0].clamp(-1, 1)",
        ".best[:, 0].clamp(-1, 1)",
        "planet::test_the_first_action_of_the_mean_is_taken",
    ),
    mutation(
        "PlaNet: the last action of the plan acts",
        "latent/planet.py",
        ".mean[:, 0].clamp(-1, 1)",
        ".mean[:, -1].clamp(-1, 1)",
        "planet::test_the_first_action_of_the_mean_is_taken",
    ),
    mutation(
        "PlaNet: noise also where none is asked for",
        "latent/planet.py",
        "        if explore:\n            action",
        "        if True:\n            action",
        "planet::test_the_first_action_of_the_mean_is_taken",
        "planet::test_exploration_adds_noise_of_the_given_width",
    ),
    mutation(
        "PlaNet: noise takes actions out of bounds",
        "latent/planet.py",
        "        return action.clamp(-1, 1)\n",
        "        return action\n",
        "planet::test_actions_are_cut_off",
    ),
    mutation(
        "overshooting: the posterior moves too",
        "latent/planet.py",
        "states.parameters[:, d:].detach()",
        "states.parameters[:, d:]",
        "planet::test_overshooting_holds_the_posterior_that_it_aims_at_fixed",
    ),
    mutation(
        "overshooting: the target is that of the start",
        "latent/planet.py",
        "states.parameters[:, d:].detach()",
        "states.parameters[:, :count].detach()",
        "planet::test_overshooting_is_the_mean_over_starts_of_the_divergence_ahead",
    ),
    mutation(
        "overshooting: actions of the wrong step",
        "latent/planet.py",
        "batch.action[:, d:].flatten(0, 1)",
        "batch.action[:, :count].flatten(0, 1)",
        "planet::test_overshooting_is_the_mean_over_starts_of_the_divergence_ahead",
    ),
    mutation(
        "overshooting: goes on across a start",
        "latent/planet.py",
        "within[:, :count] * (1 - batch.is_first[:, d:])",
        "within[:, :count]",
        "planet::test_overshooting_is_the_mean_over_starts_of_the_divergence_ahead",
    ),
    mutation(
        "overshooting: only the last step's start counts",
        "latent/planet.py",
        "within[:, :count] * (1 - batch.is_first[:, d:])",
        "1 - batch.is_first[:, d:]",
        "planet::test_overshooting_is_the_mean_over_starts_of_the_divergence_ahead",
    ),
    mutation(
        "overshooting: the first step counts twice",
        "latent/planet.py",
        "        if d > 1:\n",
        "        if d > 0:\n",
        "planet::test_overshooting_is_the_mean_over_starts_of_the_divergence_ahead",
    ),
    mutation(
        "overshooting: a sum over distances",
        "latent/planet.py",
        "    return total / distance\n",
        "    return total\n",
        "planet::test_overshooting_is_the_mean_over_starts_of_the_divergence_ahead",
    ),
    mutation(
        "overshooting: a weight that does nothing",
        "latent/planet.py",
        "loss = loss + self.config.overshooting * latent",
        "loss = loss + 0 * latent",
        "planet::test_updates_lower_the_loss_and_overshooting_enters_it",
    ),
    mutation(
        "wanderer: a new action in each step",
        "latent/planet.py",
        "if self.count % self.hold == 0:",
        "if True:",
        "planet::test_a_wanderer_holds_its_actions",
    ),
    mutation(
        "open loop: sees one row more",
        "latent/planet.py",
        "State(*(part[:, -1] for part in states))",
        "State(*(part[:, 0] for part in states))",
        "planet::test_open_loop_sees_the_first_rows_and_no_more",
    ),
    mutation(
        "open loop: actions one step too late",
        "latent/planet.py",
        "model.rssm.imagine(last, batch.action[:, seen:]",
        "model.rssm.imagine(last, batch.action[:, seen - 1 : -1]",
        "planet::test_open_loop_takes_each_action_at_its_row",
    ),
    mutation(
        "paths: the forgetful cell remembers",
        "latent/paths.py",
        "return self.layer(inputs).tanh()",
        "return (self.layer(inputs) + h).tanh()",
        "paths::test_without_the_deterministic_path_h_is_a_function_of_z_and_action",
    ),
    mutation(
        "paths: both futures count as decided",
        "latent/paths.py",
        "decided = ahead[:, arrived].abs() > 0.5",
        "decided = ahead[:, arrived].abs() > -1",
        "paths::test_measures_of_known_futures",
    ),
    mutation(
        "paths: the cue is recalled whatever its sign",
        "latent/paths.py",
        "seen[:, CUE_AGAIN, PLACES] * cue > 0",
        "seen[:, CUE_AGAIN, PLACES] * cue != 0",
        "paths::test_measures_of_known_futures",
    ),
]

DREAMER_V2 = [
    mutation(
        "DreamerV2: the balance's weights are swapped",
        "latent/dreamer_v2.py",
        "return balance * towards_posterior + (1 - balance) * towards_prior",
        "return (1 - balance) * towards_posterior + balance * towards_prior",
        "dreamer_v2::test_the_prior_gets_the_balance_and_the_posterior_the_rest",
    ),
    mutation(
        "DreamerV2: codes are spread about where they were",
        "latent/dreamer_v2.py",
        "last.bias.copy_(-last.weight @ hidden.mean(0))",
        "last.bias.copy_(last.bias)",
        "dreamer_v2::test_codes_are_spread_about_zero_over_pictures",
    ),
    mutation(
        "DreamerV2: held codes learn on",
        "latent/dreamer_v2.py",
        "parameter.requires_grad_(not held)",
        "parameter.requires_grad_(True)",
        "dreamer_v2::test_held_codes_stay_and_learn_slowly_afterwards",
    ),
    mutation(
        "DreamerV2: the divergence pulls held codes in full",
        "latent/dreamer_v2.py",
        "(HELD_KL if self.held else 1.0)",
        "1.0",
        "dreamer_v2::test_the_divergence_counts_a_tenth_while_codes_are_held",
    ),
    mutation(
        "DreamerV2: the balance's stop-gradients are missing",
        "latent/dreamer_v2.py",
        "towards_posterior = latent.kl(posterior.detach(), prior)",
        "towards_posterior = latent.kl(posterior, prior)",
        "dreamer_v2::test_the_prior_gets_the_balance_and_the_posterior_the_rest",
    ),
    mutation(
        "DreamerV2: a side of the balance is the KL the other way round",
        "latent/dreamer_v2.py",
        "towards_prior = latent.kl(posterior, prior.detach())",
        "towards_prior = latent.kl(prior.detach(), posterior)",
        "dreamer_v2::test_the_divergence_is_that_of_torch_and_the_balance_leaves_its_value",
    ),
    mutation(
        "DreamerV2: the KL of classes the other way round",
        "latent/rssm.py",
        "return (q.exp() * (q - p)).sum((-2, -1))",
        "return (p.exp() * (p - q)).sum((-2, -1))",
        "dreamer_v2::test_the_divergence_is_that_of_torch_and_the_balance_leaves_its_value",
    ),
    mutation(
        "DreamerV2: the KL of classes is averaged over groups",
        "latent/rssm.py",
        "return (q.exp() * (q - p)).sum((-2, -1))",
        "return (q.exp() * (q - p)).sum(-1).mean(-1)",
        "dreamer_v2::test_the_divergence_is_that_of_torch_and_the_balance_leaves_its_value",
    ),
    mutation(
        "DreamerV2: straight-through without the probabilities",
        "latent/rssm.py",
        "return (one_hot + p - p.detach()).flatten(-2)",
        "return (one_hot + 0 * p).flatten(-2)",
        "dreamer_v2::test_the_straight_through_gradient_of_a_linear_loss_is_exact",
    ),
    mutation(
        "DreamerV2: straight-through with the gradient of the logits",
        "latent/rssm.py",
        "return (one_hot + p - p.detach()).flatten(-2)",
        "return (one_hot + p.log() - p.log().detach()).flatten(-2)",
        "dreamer_v2::test_the_straight_through_gradient_of_a_linear_loss_is_exact",
    ),
    mutation(
        "DreamerV2: probabilities instead of draws",
        "latent/rssm.py",
        "return (one_hot + p - p.detach()).flatten(-2)",
        "return p.flatten(-2)",
        "dreamer_v2::test_classes_are_drawn_with_their_frequencies",
    ),
    mutation(
        "DreamerV2: pixels in other units for the encoder",
        "latent/dreamer_v2.py",
        "math.sqrt(self.rare * (1 - self.rare))",
        "(self.rare * (1 - self.rare))",
        "dreamer_v2::test_the_encoder_sees_standardised_pixels",
    ),
    mutation(
        "DreamerV2: the decoder starts at the probabilities, not their log-odds",
        "latent/dreamer_v2.py",
        "mean.clamp(1e-3, 1 - 1e-3).logit().flatten()",
        "mean.clamp(1e-3, 1 - 1e-3).flatten()",
        "dreamer_v2::test_the_decoder_starts_at_the_mean_picture",
    ),
    mutation(
        "DreamerV2: free nats are not scaled with the divergence",
        "latent/dreamer_v2.py",
        "scale * kl.clamp_min(self.config.free_nats)",
        "(scale * kl).clamp_max(self.config.free_nats)",
        "dreamer_v2::test_the_loss_takes_the_balanced_divergence_scaled_and_free_nats_off",
    ),
    mutation(
        "DreamerV2: the advantage is not detached",
        "latent/dreamer_v2.py",
        "advantage = (returns - value).detach()",
        "advantage = returns - value",
        "dreamer_v2::test_losses_by_hand_and_what_they_move",
        "dreamer_v2::test_the_mixed_gradient_is_the_mixture",
    ),
    mutation(
        "DreamerV2: ρ weighs the dynamics",
        "latent/dreamer_v2.py",
        "config.mix * log_prob * advantage + (1 - config.mix) * returns",
        "(1 - config.mix) * log_prob * advantage + config.mix * returns",
        "dreamer_v2::test_losses_by_hand_and_what_they_move",
        "dreamer_v2::test_reinforce_is_the_policy_gradient_of_two_states",
    ),
    mutation(
        "DreamerV2: entropy is a cost",
        "latent/dreamer_v2.py",
        "return -(weight * (gain + config.entropy * entropy)).mean()",
        "return -(weight * (gain - config.entropy * entropy)).mean()",
        "dreamer_v2::test_losses_by_hand_and_what_they_move",
    ),
    mutation(
        "DreamerV2: an action is scored in the state it led to",
        "latent/dreamer_v2.py",
        "seen = features[:, :-1].detach()",
        "seen = features[:, 1:].detach()",
        "dreamer_v2::test_reinforce_is_the_policy_gradient_of_two_states",
    ),
    mutation(
        "DreamerV2: the drawn action carries a gradient into its probability",
        "latent/dreamer_v2.py",
        "self.policy.log_prob(parameters, trajectory.actions.detach())",
        "self.policy.log_prob(parameters, trajectory.actions)",
        "dreamer_v2::test_a_drawn_action_carries_no_gradient_into_its_probability",
    ),
    mutation(
        "DreamerV2: the reward of where the action was taken",
        "latent/dreamer_v2.py",
        "reward = self.model.predict_reward(features[:, 1:])",
        "reward = self.model.predict_reward(features[:, :-1])",
        "dreamer_v2::test_reinforce_is_the_policy_gradient_of_two_states",
    ),
    mutation(
        "DreamerV2: the discount of where the action was taken",
        "latent/dreamer_v2.py",
        "self.config.gamma * self.model.predict_continuation(features[:, 1:])",
        "self.config.gamma * self.model.predict_continuation(features[:, :-1])",
        "dreamer_v2::test_reinforce_is_the_policy_gradient_of_two_states",
    ),
    mutation(
        "DreamerV2: weights one step late",
        "latent/dreamer_v2.py",
        "first = torch.cat([alive[:, None], discount[:, :-1]], 1)",
        "first = alive[:, None] * discount",
        "dreamer_v2::test_weights_are_products_of_discounts_before_the_step",
        "dreamer_v2::test_reinforce_is_the_policy_gradient_of_two_states",
    ),
    mutation(
        "DreamerV2: no graph through imagination",
        "latent/dreamer_v2.py",
        "with torch.set_grad_enabled(self.config.mix < 1):\n            return imagine(",
        "with torch.no_grad():\n            return imagine(",
        "dreamer_v2::test_the_dynamics_gradient_of_two_states",
    ),
    mutation(
        "DreamerV2: the policy sees states with their gradient",
        "latent/dreamer_v2.py",
        "self.act(state.detach(), generator, explore=True)",
        "self.act(state, generator, explore=True)",
        "dreamer_v2::test_the_dynamics_gradient_of_two_states",
    ),
    mutation(
        "DreamerV2: the critic's target carries a gradient",
        "latent/dreamer_v2.py",
        "(value - returns.detach()).square()",
        "(value - returns).square()",
        "dreamer_v2::test_losses_by_hand_and_what_they_move",
    ),
    mutation(
        "DreamerV2: the slow critic is copied at each update",
        "latent/dreamer_v2.py",
        "if self.updates % self.config.slow_every == 0:",
        "if True:",
        "dreamer_v2::test_the_slow_critic_is_a_copy_of_every_third_update",
    ),
    mutation(
        "DreamerV2: a push's density is that of the whole Gaussian",
        "latent/dreamer_v2.py",
        "return (normal - mass.log()).sum(-1)",
        "return normal.sum(-1)",
        "dreamer_v2::test_a_push_is_a_gaussian_cut_off",
    ),
    mutation(
        "DreamerV2: the ends of a push's entropy the other way round",
        "latent/dreamer_v2.py",
        "ends = low * unit.log_prob(low).exp() - high * unit.log_prob(high).exp()",
        "ends = high * unit.log_prob(high).exp() - low * unit.log_prob(low).exp()",
        "dreamer_v2::test_a_push_is_a_gaussian_cut_off",
    ),
    mutation(
        "Predictions: the mean of logarithms",
        "latent/predictions.py",
        "return stacked.logsumexp(0) - math.log(len(stacked))",
        "return stacked.mean(0)",
        "predictions::test_one_step_is_the_enumerated_mixture",
        "predictions::test_one_step_is_the_closed_form_of_gaussians",
    ),
    mutation(
        "Predictions: draws from the posterior, which has seen the picture",
        "latent/predictions.py",
        "z = model.latent.sample(priors.expand(shape), generator)\n        features",
        "z = model.latent.sample(states.parameters.expand(shape), generator)\n        features",
        "predictions::test_one_step_is_the_enumerated_mixture",
    ),
    mutation(
        "Predictions: an open loop starts a step too early",
        "latent/predictions.py",
        "seen = Sequences(*(part[:, :context] for part in batch))",
        "seen = Sequences(*(part[:, : max(context - 1, 1)] for part in batch))",
        "predictions::test_an_open_loop_is_the_enumerated_mixture_two_steps_ahead",
    ),
    mutation(
        "Grid: a pad leads to the first exit",
        "latent/grids.py",
        "EXITS if on_pad else target",
        "EXITS[:1] if on_pad else target",
        "grids::test_a_pad_leads_to_each_exit_alike",
    ),
    mutation(
        "Grid: walls do not stop",
        "latent/grids.py",
        'or MAP[row, column] == "#"',
        "",
        "grids::test_a_move_by_hand",
        "grids::test_the_goal_is_reached_through_a_pad_alone",
    ),
    mutation(
        "Grid: value goes on after the goal",
        "latent/grids.py",
        "discount * ~arrived * value",
        "discount * value",
        "grids::test_optimal_values_are_what_the_greedy_policy_earns",
    ),
]

DREAMER = [
    mutation(
        "λ-return: bootstrapped two steps ahead",
        "latent/imagination.py",
        "after = reward + discount * (1 - lam) * value[..., 1:]",
        "after = reward + discount * (1 - lam) * torch.cat([value[..., 2:], value[..., -1:]], -1)",
        "imagination::test_lambda_return_is_the_weighted_sum_of_all_n_step_returns",
        "imagination::test_lambda_zero_bootstraps_one_step_ahead_and_lambda_one_only_at_the_end",
    ),
    mutation(
        "λ-return: bootstrapped by the value of the state itself",
        "latent/imagination.py",
        "(1 - lam) * value[..., 1:]",
        "(1 - lam) * value[..., :-1]",
        "imagination::test_lambda_return_is_the_weighted_sum_of_all_n_step_returns",
        "dreamer::test_returns_are_made_of_rewards_on_arrival_and_values_one_step_ahead",
    ),
    mutation(
        "λ-return: λ and 1 − λ are swapped",
        "latent/imagination.py",
        "following = after[..., n] + discount[..., n] * lam * following",
        "following = after[..., n] + discount[..., n] * (1 - lam) * following",
        "imagination::test_lambda_return_is_the_weighted_sum_of_all_n_step_returns",
    ),
    mutation(
        "λ-return: an end does not stop what follows",
        "latent/imagination.py",
        "following = after[..., n] + discount[..., n] * lam * following",
        "following = after[..., n] + discount[..., 0] * lam * following",
        "imagination::test_nothing_after_an_end_counts",
    ),
    mutation(
        "λ-return: the last value is left out",
        "latent/imagination.py",
        "returns, following = [], value[..., -1]",
        "returns, following = [], torch.zeros_like(value[..., -1])",
        "imagination::test_lambda_zero_bootstraps_one_step_ahead_and_lambda_one_only_at_the_end",
        "imagination::test_lambda_return_is_the_weighted_sum_of_all_n_step_returns",
    ),
    mutation(
        "imagination: an action is scored at the state that it leads to",
        "latent/imagination.py",
        "return Trajectory(stack(states), torch.stack(actions, 1))",
        "return Trajectory(stack(states[1:] + states[-1:]), torch.stack(actions, 1))",
        "imagination::test_an_action_is_taken_in_the_state_before_it_and_leads_to_the_next",
        "imagination::test_pathwise_and_score_gradients_have_the_exact_gradient_as_their_mean",
    ),
    mutation(
        "imagination: an action is taken with the state before",
        "latent/imagination.py",
        "actions.append(policy(states[-1]))",
        "actions.append(policy(states[max(len(states) - 2, 0)]))",
        "imagination::test_an_action_is_taken_in_the_state_before_it_and_leads_to_the_next",
        "imagination::test_pathwise_and_score_gradients_have_the_exact_gradient_as_their_mean",
    ),
    mutation(
        "imagination: no gradient through the dynamics",
        "latent/imagination.py",
        "states.append(rssm.imagine_step(states[-1], actions[-1], generator))",
        "states.append(rssm.imagine_step(states[-1].detach(), actions[-1], generator))",
        "imagination::test_pathwise_and_score_gradients_have_the_exact_gradient_as_their_mean",
    ),
    mutation(
        "linear world: the cost of noise is discounted away",
        "latent/linear_quadratic.py",
        "q = (1 + self.gamma * p) * spread + self.cost * sigma**2 + self.gamma * q",
        "q = (1 + self.gamma * p) * spread + self.gamma * q",
        "imagination::test_imagined_returns_have_the_closed_form_as_their_mean",
        "imagination::test_values_for_ever_are_the_limit_of_longer_and_longer_returns",
    ),
    mutation(
        "linear world: scores without their states",
        "latent/linear_quadratic.py",
        "score = noise * place[:, :-1] / sigma",
        "score = noise / sigma",
        "imagination::test_pathwise_and_score_gradients_have_the_exact_gradient_as_their_mean",
    ),
    mutation(
        "Dreamer: the actor's input is not detached",
        "latent/dreamer.py",
        "return actor.sample(state.features.detach(), generator)",
        "return actor.sample(state.features, generator)",
        "dreamer::test_the_actors_input_is_detached",
    ),
    mutation(
        "Dreamer: the value target is not detached",
        "latent/dreamer.py",
        "error = 0.5 * (fitted - returns.detach()).square()",
        "error = 0.5 * (fitted - returns).square()",
        "dreamer::test_the_critics_target_and_input_are_detached",
    ),
    mutation(
        "Dreamer: the critic's input is not detached",
        "latent/dreamer.py",
        "fitted = critic(features[:, :-1].detach()).squeeze(-1)",
        "fitted = critic(features[:, :-1]).squeeze(-1)",
        "dreamer::test_the_critics_target_and_input_are_detached",
    ),
    mutation(
        "Dreamer: values are fitted one state late",
        "latent/dreamer.py",
        "fitted = critic(features[:, :-1].detach()).squeeze(-1)",
        "fitted = critic(features[:, 1:].detach()).squeeze(-1)",
        "dreamer::test_losses_are_weighted_means_over_starts_and_steps",
        "dreamer::test_the_critics_target_and_input_are_detached",
    ),
    mutation(
        "Dreamer: the reward of the state that is left",
        "latent/dreamer.py",
        "reward = model.predict_reward(features[:, 1:])",
        "reward = model.predict_reward(features[:, :-1])",
        "dreamer::test_returns_are_made_of_rewards_on_arrival_and_values_one_step_ahead",
    ),
    mutation(
        "Dreamer: the first weight is a discount",
        "latent/dreamer.py",
        "return before.cumprod(-1).detach()",
        "return discount.cumprod(-1).detach()",
        "dreamer::test_weights_are_products_of_the_discounts_before_and_start_at_one",
        "dreamer::test_losses_are_weighted_means_over_starts_and_steps",
    ),
    mutation(
        "Dreamer: the weights have a gradient",
        "latent/dreamer.py",
        "return before.cumprod(-1).detach()",
        "return before.cumprod(-1)",
        "dreamer::test_weights_are_products_of_the_discounts_before_and_start_at_one",
    ),
    mutation(
        "Dreamer: the actor descends the returns",
        "latent/dreamer.py",
        "-(weights * gain).mean()",
        "(weights * gain).mean()",
        "dreamer::test_imagined_returns_rise_while_the_model_is_held_fixed",
        "dreamer::test_losses_are_weighted_means_over_starts_and_steps",
    ),
    mutation(
        "Dreamer: entropy is a cost",
        "latent/dreamer.py",
        "gain = returns + config.entropy * entropy",
        "gain = returns - config.entropy * entropy",
        "dreamer::test_losses_are_weighted_means_over_starts_and_steps",
    ),
    mutation(
        "Dreamer: entropy of the Gaussian before the tanh",
        "latent/dreamer.py",
        "math.e) + std.log() + slope).sum(-1)",
        "math.e) + std.log()).sum(-1)",
        "dreamer::test_entropy_is_that_of_the_tanh_of_a_gaussian",
    ),
    mutation(
        "Dreamer: a loss leaves gradients in the other parts",
        "latent/dreamer.py",
        "loss.backward(inputs=list(part.parameters()))",
        "loss.backward()",
        "dreamer::test_each_loss_moves_its_own_part",
    ),
    mutation(
        "Dreamer: imagination starts with a gradient to the encoder",
        "latent/dreamer.py",
        "flat = states.detach().flatten()",
        "flat = states.flatten()",
        "dreamer::test_the_start_states_are_filtered_ones_without_a_gradient",
    ),
    mutation(
        "world model: a reward of 0 is learnt where an episode starts",
        "latent/world_model.py",
        "self.config.reward_scale * paid * self.reward_loss",
        "self.config.reward_scale * self.reward_loss",
        "world_model::test_no_reward_is_learnt_where_an_episode_starts",
        "world_model::test_reward_and_continuation_are_likelihoods",
    ),
    mutation(
        "Dreamer: rates fall from the first update on",
        "latent/dreamer.py",
        "min(1.0, 0.05 + 1.9 * (1 - progress))",
        "min(1.0, 0.05 + 0.95 * (1 - progress))",
        "dreamer::test_rates_stay_for_half_a_run_and_then_fall",
    ),
    mutation(
        "Dreamer: rewards are not scaled",
        "latent/dreamer.py",
        "batch._replace(reward=c.reward_factor * batch.reward)",
        "batch._replace(reward=batch.reward)",
        "dreamer::test_an_update_descends_all_three_and_scales_rewards",
    ),
    mutation(
        "Dreamer: drawn actions keep no noise of exploration",
        "latent/dreamer.py",
        "return (action + noise).clamp(-1, 1)",
        "return action.clamp(-1, 1)",
        "dreamer::test_exploring_adds_noise_and_stays_in_bounds",
    ),
    mutation(
        "Dreamer: the noise stands outside the tanh",
        "latent/dreamer.py",
        "torch.tanh(mean + std * torch.randn(mean.shape, generator=generator))",
        "torch.tanh(mean) + std * torch.randn(mean.shape, generator=generator)",
        "dreamer::test_a_drawn_action_is_the_tanh_of_a_gaussian",
    ),
    mutation(
        "Dreamer: the first row of an episode does not mask the past in acting",
        "latent/acting.py",
        "self.state, seen.action, seen.is_first, embedding, self.generator",
        "self.state, seen.action, 0 * seen.is_first, embedding, self.generator",
        "dreamer::test_acting_forgets_the_episode_before",
    ),
    mutation(
        "contrast: the softmax runs over the states",
        "latent/dreamer.py",
        "scores = states.flatten(0, 1) @ seen.flatten(0, 1).T",
        "scores = seen.flatten(0, 1) @ states.flatten(0, 1).T",
        "dreamer::test_contrast_is_between_all_observations_of_the_batch",
    ),
    mutation(
        "contrast: the probe moves the states",
        "latent/dreamer.py",
        "return own + super().observation_loss(features.detach(), observation)",
        "return own + super().observation_loss(features, observation)",
        "dreamer::test_the_probe_of_contrast_moves_no_state",
    ),
    mutation(
        "reward only: the probe moves the states",
        "latent/dreamer.py",
        "return super().observation_loss(features.detach(), observation)\n\n\nREPRESENTATIONS",
        "return super().observation_loss(features, observation)\n\n\nREPRESENTATIONS",
        "dreamer::test_who_learns_from_observations",
    ),
]

VARIANTS = [
    mutation(
        "joint: the posterior does not hear the world model",
        "variants.py",
        "    terms = elbo_terms(model, batch, noise)\n    kept",
        "    from mbta_helpers.objectives import one_pass_loss\n\n"
        "    return one_pass_loss(model, batch, noise, beta)\n    kept",
        "variants::test_joint_gradient_in_phi_is_ems_and_the_world_models",
        "variants::test_joint_gradient_in_phi_is_the_slope_of_the_loss",
        "variants::test_trainers_start_alike_and_part_in_the_posterior",
    ),
    mutation(
        "absolute: the mean is a displacement again",
        "variants.py",
        "return normaliser.mean + normaliser.std * self.heads.mean(self.features(state, z))",
        "return state + normaliser.std * self.heads.mean(self.features(state, z))",
        "variants::test_absolute_model_predicts_in_units_of_the_states",
    ),
    mutation(
        "lake: the wind blows on the land too",
        "lake.py",
        "DRIFT * wind * (position[:, 1] < 0)",
        "DRIFT * wind",
        "lake::test_the_wind_blows_on_the_lake_alone",
    ),
    mutation(
        "lake: a coin for each step",
        "lake.py",
        "        position = move(position, action, winds)\n",
        "        position = move(position, action, draw_winds(episodes, rng))\n",
        "lake::test_the_data_moves_as_the_lake_says",
    ),
    mutation(
        "lake: the wind is read off the windows that it was fitted on",
        "lake.py",
        "    rest = wind[fitted:]\n"
        "    left = (features[fitted:] @ weights - rest).square().mean()\n",
        "    rest = wind[:fitted]\n"
        "    left = (features[:fitted] @ weights - rest).square().mean()\n",
        "lake::test_the_wind_is_judged_on_windows_that_it_was_not_fitted_on",
    ),
    mutation(
        "ablations: the difference forgets what seeds share",
        "ablations.py",
        "student_interval((won - other) / count)",
        "(difference - 1.0, difference + 1.0)",
        "ablations::test_difference_of_seeds_is_taken_seed_by_seed",
    ),
    mutation(
        "ablations: the ends of Newcombe's interval are swapped",
        "ablations.py",
        "difference - math.hypot(rate - low, base_high - base_rate)",
        "difference - math.hypot(high - rate, base_rate - base_low)",
        "ablations::test_difference_of_one_seed_has_newcombes_interval",
    ),
    mutation(
        "ablations: the narrower interval",
        "ablations.py",
        "return max(wilson, student,",
        "return min(wilson, student,",
        "ablations::test_seeds_that_differ_have_students_interval",
        "ablations::test_seeds_that_agree_keep_wilsons_interval",
    ),
]

MACRO = [
    mutation(
        "maze pictures: up and down are swapped",
        "latent/maze_pictures.py",
        "along.flip(0)",
        "along",
        "maze_pictures::test_the_spot_is_found_where_it_was_drawn",
    ),
    mutation(
        "coarse play: the first action for the mean",
        "latent/maze_pictures.py",
        "moves.reshape(count, held, -1).mean(1)",
        "moves.reshape(count, held, -1)[:, 0]",
        "maze_pictures::test_coarse_play_has_every_fifth_state_and_the_mean_action_between",
    ),
    mutation(
        "what is shown: the place after for the one before",
        "latent/maze_pictures.py",
        "np.concatenate([places[:1], places[:-1]])",
        "np.concatenate([places[1:], places[-1:]])",
        "maze_pictures::test_what_is_shown_is_the_place_now_and_the_one_before",
    ),
    mutation(
        "what is shown: an episode remembers the one before",
        "latent/maze_pictures.py",
        "before[coarse.state_starts] = places[coarse.state_starts]",
        "before[0] = places[0]",
        "maze_pictures::test_what_is_shown_is_the_place_now_and_the_one_before",
    ),
    mutation(
        "sight: the move points back",
        "latent/maze_pictures.py",
        "MOVE * (now - before)",
        "MOVE * (before - now)",
        "maze_pictures::test_sight_is_the_place_and_ten_times_the_move",
    ),
    mutation(
        "maze pictures: an action is not held",
        "latent/maze_pictures.py",
        "for _ in range(HELD):",
        "for _ in range(1):",
        "maze_pictures::test_an_action_is_held_for_five_steps_of_the_simulator",
    ),
    mutation(
        "macro model: the action of the wrong row",
        "latent/macro.py",
        "torch.cat([before, batch.actions], 1)",
        "torch.cat([batch.actions, before], 1)",
        "macro::test_a_row_holds_the_action_that_led_to_its_picture",
    ),
    mutation(
        "macro model: drawing shapes the states",
        "latent/macro.py",
        "self.picture(features.detach())",
        "self.picture(features)",
        "macro::test_drawing_does_not_shape_the_states",
    ),
    mutation(
        "macro model: the older picture is drawn",
        "latent/macro.py",
        "pairs[..., 0, :, :], 2)",
        "pairs[..., 1, :, :], 2)",
        "macro::test_the_loss_is_that_of_its_distributions",
    ),
    mutation(
        "macro model: the play is filtered with the action after",
        "latent/macro.py",
        "play.actions[play.action_starts[alive] + t - 1]",
        "play.actions[play.action_starts[alive] + t - 2]",
        "macro::test_filtering_side_by_side_is_filtering_alone_and_is_the_models_own",
    ),
    mutation(
        "watching: the place before is never moved on",
        "latent/maze_agents.py",
        "self.place[rows] = state[:, :2]",
        "self.place[rows] = places[:, 2:]",
        "maze_agents::test_what_is_watched_is_what_filtering_gives",
    ),
    mutation(
        "plans of actions: only the end counts",
        "latent/maze_agents.py",
        ".norm(dim=-1).sum(-1)",
        ".norm(dim=-1)[..., -1]",
        "maze_agents::test_a_plan_costs_the_distances_on_its_way",
    ),
    mutation(
        "plans of actions: actions beyond the bounds",
        "latent/maze_agents.py",
        "actions.flatten(0, 1).clamp(-1, 1)",
        "actions.flatten(0, 1)",
        "maze_agents::test_a_plan_costs_the_distances_on_its_way",
    ),
    mutation(
        "dreams with a goal: the goal is lost",
        "latent/maze_agents.py",
        "h, goal = state.h[..., :-2], state.h[..., -2:]",
        "h, goal = state.h[..., :-2], 0 * state.h[..., -2:]",
        "maze_agents::test_a_dream_keeps_its_goal_and_follows_the_model",
    ),
    mutation(
        "dreams with a goal: being away pays",
        "latent/maze_agents.py",
        "torch.exp(-(self.model.place(own) - goal)",
        "torch.exp((self.model.place(own) - goal)",
        "maze_agents::test_a_dream_pays_for_nearness_and_shows_both_places",
    ),
    mutation(
        "dreams with a goal: the way points back",
        "latent/maze_agents.py",
        "goal - place, waves",
        "place - goal, waves",
        "maze_agents::test_a_dream_pays_for_nearness_and_shows_both_places",
    ),
    mutation(
        "latent skills: the state comes first",
        "latent/maze_agents.py",
        "torch.cat([model.sight(features), features], -1)",
        "torch.cat([features, model.sight(features)], -1)",
        "maze_agents::test_skills_see_the_place_first_and_the_state_last",
    ),
]

MUTATIONS = [
    *OBJECTIVES,
    *WINDOWS,
    *NETWORKS,
    *LED_POLICY,
    *PLANNING,
    *TRAINING,
    *PRECISION,
    *DISTRIBUTED,
    *EVALUATION,
    *CHECKPOINTS,
    *VARIANTS,
    *WALKS,
    *ROOMS,
    *OPTIONS,
    *OPTION_CRITIC,
    *SOFT_OPTION_CRITIC,
    *FEUDAL,
    *DIAYN,
    *LIVE_FIGURES,
    *WORLD_MODELS,
    *DREAMER_V3,
    *LATENT,
    *DREAMER_V2,
    *DREAMER,
    *MACRO,
]


def named_tests(mutations: Iterable[Mutation]) -> list[str]:
    """Every test that some mutation names, once."""
    return list(dict.fromkeys(test for each in mutations for test in each.tests))


def one_of_each_file(tests: list[str]) -> list[str]:
    """The first test of each file: all of them pass on the package itself, or the suite fails."""
    return list({test.partition("::")[0]: test for test in reversed(tests)}.values())


def occurrences(mutation: Mutation) -> int:
    """How often the text to replace is in the package's file."""
    return (PACKAGE / mutation.file).read_text(encoding="utf-8").count(mutation.old)


def copy_package(folder: Path, mutation: Mutation | None) -> None:
    """The package's source in a folder, with the mutation in it."""
    ignored = shutil.ignore_patterns("__pycache__", "parameters")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored)
    (folder / PACKAGE.name / "parameters").symlink_to(PACKAGE / "parameters")  # they are large
    if mutation is not None:
        path = folder / PACKAGE.name / mutation.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


class Outcomes:
    """A plugin of pytest that notes which tests failed: the call itself, not its fixtures."""

    def __init__(self):
        self.failed: list[str] = []
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            where = self.failed if report.when == "call" else self.broken
            file, _, test = report.nodeid.partition("::")
            name = f"{Path(file).stem.removeprefix('test_')}::{test.partition('[')[0]}"
            if name not in where:
                where.append(name)


def in_child(mutation: Mutation | None, tests: list[str], folder: Path) -> dict:
    """Run tests in a child process against a copy of the package; which of them failed."""
    copy_package(folder, mutation)
    answer = folder / "answer.json"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            with (folder / "output.txt").open("w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                os.chdir(folder)
                answer.write_text(json.dumps(_pytest(tests, folder)))
                code = 0
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    output = (folder / "output.txt").read_text(errors="replace")
    if not answer.exists():
        return {"exit": None, "failed": [], "broken": [], "output": output[-3000:]}
    return json.loads(answer.read_text()) | {"output": output[-3000:]}


def _pytest(tests: list[str], folder: Path) -> dict:
    import pytest

    sys.path.insert(0, str(folder))
    import mbta_helpers

    assert Path(mbta_helpers.__file__).is_relative_to(folder), mbta_helpers.__file__
    outcomes = Outcomes()
    files = [test.split("::") for test in tests]
    code = pytest.main(
        [
            *(f"{TESTS}/test_{file}.py::{test}" for file, test in files),
            *("-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")),
            *("--rootdir", str(ROOT), "--basetemp", str(folder / "temporary")),
        ],
        plugins=[outcomes],
    )
    return {"exit": int(code), "failed": outcomes.failed, "broken": outcomes.broken}


def preload() -> None:
    """Everything that takes long to import and is not the package."""
    import contextlib
    import io
    import warnings

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import gymnasium_robotics  # noqa: F401
        import hypothesis  # noqa: F401
        import minari  # noqa: F401
        import pytest  # noqa: F401
        import safetensors.torch  # noqa: F401
        import torch
        import torch._dynamo
        import tqdm.auto  # noqa: F401
    torch.set_num_threads(1)


def main(names: list[str]) -> None:
    """Try the mutations; a line of JSON for each, the unchanged package first."""
    chosen = [each for each in MUTATIONS if not names or each.name in names]
    preload()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        runs = [("unchanged", None, one_of_each_file(named_tests(chosen)))]
        runs += [(each.name, each, list(each.tests)) for each in chosen if occurrences(each) == 1]
        for number, (name, each, tests) in enumerate(runs):
            place = Path(folder) / str(number)
            place.mkdir()
            print(json.dumps({"name": name} | in_child(each, tests, place)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
