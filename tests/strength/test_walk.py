"""The walk's rules, on ground that is made up."""

import math

import pytest
import torch

from bayesreg.strength.walk.parts import parts_of
from bayesreg.strength.walk.points import Measured, Point, interval, vertex
from bayesreg.strength.walk.walk import STEP, STRONGER, WEAKER, settle, walk


class Ground:
    """Fits that are places; the score is a function of them."""

    def __init__(self, score, collapses=lambda at: False, examples=1, null=None):
        self.score, self.collapses, self.examples, self.null_nll = score, collapses, examples, null
        self.spent, self.begun, self.gone = 0.0, [], []

    def begin(self, at):
        self.spent += 100.0
        self.begun.append(at)
        return at

    def go_on(self, at, state):
        self.spent += 30.0
        self.gone.append((at, state))
        return at

    def collapsed(self, state):
        return self.collapses(state)

    def measure(self, at, state):
        assert at == state
        return Measured(10.0**at, self.score(at), 0.0)


def parabola(middle, height=10.0):
    return lambda at: height * (at - middle) ** 2


@pytest.mark.parametrize("middle", [-1.2, -0.1, 0.0, 0.4, 1.9])
def test_it_finds_the_middle(middle):
    walked = walk(Ground(parabola(middle, 0.1)))
    assert vertex(walked.points) == pytest.approx(middle, abs=1e-9)
    assert not walked.collapsed
    assert [p.at for p in walked.points] == sorted(p.at for p in walked.points)


def test_each_fit_begins_where_the_one_before_ended():
    ground = Ground(parabola(0.0))
    walk(ground)
    assert ground.begun == [0.0]
    assert (STEP, 0.0) in ground.gone
    assert (-STEP, 0.0) in ground.gone
    assert all(abs(at - state) == pytest.approx(STEP) for at, state in ground.gone)


def test_what_a_step_cost_is_counted():
    walked = walk(Ground(parabola(0.0)))
    assert sorted({p.evaluations for p in walked.points}) == [30.0, 100.0]


def test_two_rises_end_a_direction_and_a_small_first_one_does_not():
    def bumpy(at):
        # A first rise, then far better.
        return {0.0: 1.0, STEP: 1.1, 2 * STEP: 0.5}.get(round(at, 3), 2.0 + abs(at))

    walked = walk(Ground(bumpy, examples=1))
    assert vertex(walked.points) == pytest.approx(2 * STEP, abs=STEP)


def test_a_steep_rise_to_weaker_priors_ends_at_once():
    ground = Ground(lambda at: max(at, 0.0) * 10.0, examples=1)
    walk(ground)
    assert max(at for at, _ in ground.gone) == STEP


def test_a_steep_rise_to_stronger_priors_does_not():
    def score(at):
        return 5.0 if round(at, 3) == -STEP else abs(at + 3 * STEP)

    walked = walk(Ground(score))
    assert vertex(walked.points) == pytest.approx(-3 * STEP, abs=STEP)


def test_collapse_at_the_start_begins_weaker():
    ground = Ground(parabola(1.0), collapses=lambda at: at < 0.5)
    walked = walk(ground)
    assert walked.begun_weaker == 2
    assert ground.begun == [0.0, STEP, 2 * STEP]
    assert all(p.at >= 0.5 for p in walked.points)


def test_a_collapsed_fit_is_no_point_and_halves_the_step():
    ground = Ground(parabola(-0.9), collapses=lambda at: at < -1.0)
    walked = walk(ground)
    assert all(p.at >= -1.0 for p in walked.points)
    assert walked.collapsed
    # The step is taken again from the last live weights, half as long.
    after = [pair for pair in ground.gone if pair[1] == pytest.approx(-2 * STEP)]
    assert [round(at, 4) for at, _ in after] == [round(-3 * STEP, 4), round(-2.5 * STEP, 4)]
    assert min(p.at for p in walked.points) == pytest.approx(-2.5 * STEP)


def test_no_width_is_tried_that_is_as_narrow_as_a_collapsed_one():
    ground = Ground(lambda at: at, collapses=lambda at: at < -0.4)
    walk(ground)
    tried = [at for at, _ in ground.gone if at < 0]
    for i, at in enumerate(tried):
        if at < -0.4:
            assert all(later > at for later in tried[i + 1 :])


def test_a_width_that_collapsed_is_not_tried_again():
    """Halved steps from the last live weights come back to it."""
    ground = Ground(lambda at: at, collapses=lambda at: at < -0.7)
    walked = walk(ground)
    assert [round(at, 4) for at, _ in ground.gone if at < 0] == [-0.375, -0.75, -0.5625]
    assert walked.collapsed == (-0.75,)


def test_what_is_better_after_a_rise_starts_the_count_again():
    places = {0: 1.0, 1: 1.1, 2: 0.9, 3: 0.95, 4: 0.5, 5: 0.7, 6: 0.7}
    walked = walk(Ground(lambda at: places[min(round(abs(at) / STEP), 6)]), directions=(WEAKER,))
    assert [round(p.at / STEP) for p in walked.points] == [0, 1, 2, 3, 4, 5, 6]


def test_collapse_after_a_rise_ends_the_direction():
    ground = Ground(lambda at: abs(at) * 0.1, collapses=lambda at: at < -0.5)
    walk(ground)
    assert sum(at < -0.5 for at, _ in ground.gone) == 1


def test_worse_than_nothing_goes_on_to_stronger_priors():
    """A network whose score is above that of the class frequencies is overconfident, whatever the last step did."""

    def score(at):
        places = {0: 3.0, 1: 3.4, 2: 3.5, 3: 2.5, 4: 1.2, 5: 1.5, 6: 1.9}
        return places.get(round(-at / STEP), 6.0) if at <= 0 else 6.0 + at

    found = vertex(walk(Ground(score, null=2.3)).points)
    assert found == pytest.approx(-4 * STEP, abs=STEP)
    # And without knowing what nothing scores it stops in front of the hill.
    assert vertex(walk(Ground(score, null=None)).points) > -2 * STEP


def test_one_direction_and_the_other_only_if_the_start_is_the_best():
    ground = Ground(parabola(-1.0, 0.1))
    walk(ground, directions=(STRONGER,), otherwise=(WEAKER,))
    assert all(at < 0.0 for at, _ in ground.gone)
    ground = Ground(parabola(0.3, 0.1))
    walked = walk(ground, directions=(STRONGER,), otherwise=(WEAKER,))
    assert vertex(walked.points) == pytest.approx(0.3, abs=1e-9)


def test_it_goes_on_from_a_fit_that_there_is():
    ground = Ground(parabola(0.0))
    walked = walk(ground, 0.1, state=0.2)
    assert ground.begun == []
    assert ground.gone[0] == (0.1, 0.2)
    assert {p.evaluations for p in walked.points} == {30.0}


def test_the_lowest_points_are_taken_further_until_the_lowest_stays():
    """The fit from the start on was no fit yet: with more iterations its weak side scores far worse."""
    ground = Ground(parabola(0.2, 0.1))
    walked = walk(ground)
    assert vertex(walked.points) == pytest.approx(0.2)
    later = Ground(lambda at: 0.1 * (at + 0.4) ** 2)
    settled = settle(later, walked)
    assert vertex(settled.points) == pytest.approx(-0.4)
    # Three around the first lowest, then those that are new.
    assert [at for at, _ in later.gone] == [0.0, STEP, 2 * STEP, -STEP, -2 * STEP]
    assert all(state == at for at, state in later.gone)
    costs = {p.at: p.evaluations for p in settled.points}
    assert costs[0.0] == 130.0
    assert costs[STEP] == 60.0


def test_fits_at_rest_are_left_as_they_are():
    class AtRest(Ground):
        def go_on(self, at, state):
            self.spent += 1.0
            return [at]

        def measure(self, at, state):
            raise AssertionError

    walked = walk(Ground(parabola(0.2, 0.1)))
    assert settle(AtRest(None), walked).points == walked.points


def test_it_ends_somewhere():
    walked = walk(Ground(lambda at: -at))
    assert walked.points[-1].at <= 3.0 + 1e-9
    assert len(walked.points) < 20


def points(pairs):
    return [Point(at, Measured(10.0**at, 0.0, 0.0), value, 0.0, None) for at, value in pairs]


def test_the_interval_is_of_the_parabola_near_by_and_of_lines_further_out():
    # (x − 0.2)² · 4 is 2 at 0.2 ± √½; the left end is inside of the neighbours, the right one too.
    made = points([(x, 4.0 * (x - 0.2) ** 2) for x in (-1.0, 0.0, 1.0)])
    assert interval(made) == pytest.approx((0.2 - 0.5**0.5, 0.2 + 0.5**0.5))
    # Shallow: beyond the neighbours a line from −1 (1.44·0.1) to −3 (50).
    made = points([(-3.0, 50.0), *((x, 0.1 * (x - 0.2) ** 2) for x in (-1.0, 0.0, 1.0)), (2.0, 1.0)])
    low, high = interval(made)
    assert low == pytest.approx(-1.0 - 2.0 * (2.0 - 0.144) / (50.0 - 0.144))
    assert high is None
    assert interval(points([(0.0, 0.0), (1.0, 4.0)])) == (None, pytest.approx(0.5))


def test_the_choice_is_in_its_interval():
    made = points([(-0.75, 100.0), (0.0, 0.0), (0.75, 29.0)])
    low, high = interval(made)
    assert low < vertex(made) < high


def test_the_vertex_stays_between_its_neighbours():
    assert vertex(points([(0.0, 1.0), (1.0, 0.0), (2.0, 0.0)])) == pytest.approx(1.5)
    assert vertex(points([(0.0, 0.0), (1.0, 1.0)])) == 0.0
    assert vertex(points([(0.0, 1.0), (1.0, math.nextafter(1.0, 0.0)), (2.0, 1.0)])) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("method", ["split", "folds"])
def test_no_part_is_empty(count, method):
    for targets in (torch.arange(count) % 2, torch.randn(count, 1)):
        parts = parts_of(targets, method, 0)
        assert len(parts) == (min(5, count) if method == "folds" else 1)
        assert all(len(fit) and len(held) for fit, held in parts)
        assert all(sorted([*fit.tolist(), *held.tolist()]) == list(range(count)) for fit, held in parts)


def test_classes_are_in_all_parts_alike():
    labels = torch.tensor([0] * 25 + [1] * 10 + [2] * 5)
    for seed in range(5):
        for _, held in parts_of(labels, "folds", seed):
            assert torch.bincount(labels[held], minlength=3).tolist() == [5, 2, 1]
