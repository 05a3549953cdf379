"""Golden vectors of the burst detector (edge-agent/src/signal/burst.rs); standard library only.

    python3 make.py        writes charts.csv and verdicts.csv beside this file

charts.csv: of each chart the mean number of pictures until an alarm, at the usual share and at the burst's, by another
way than the agent's: the distribution of the sum is taken forward picture by picture until its shape no longer changes
(the survival function is then geometric), and the survival function is summed. `before` is the same at the usual share
with the limit one lower: it must be below what was asked for. `found_180` is the share of bursts found within 180
pictures.

verdicts.csv: 0 pass, 1 reject, 2 unknown, from a linear congruential generator (Knuth's MMIX numbers): 2,000 pictures at
0.4 %, 400 at 4.5 %, 2,000 at 0.4 %; every 50th is unknown. The last column says whether a burst goes on after it.
"""
import math
from pathlib import Path

HERE = Path(__file__).parent


def step_of(usual, at):
    cost = -math.log((1 - at) / (1 - usual))
    worth = math.log(at * (1 - usual) / (usual * (1 - at)))
    return max(2, round(worth / cost))


def forward(state, step, limit, share):
    after = [0.0] * limit
    for total, weight in enumerate(state):
        after[max(total - 1, 0)] += weight * (1 - share)
        if total + step - 1 < limit:
            after[total + step - 1] += weight * share
    return after


def run_length(step, limit, share):
    state, summed, survived = [1.0] + [0.0] * (limit - 1), 0.0, 1.0
    ratio = 0.0
    while True:
        summed += survived
        state = forward(state, step, limit, share)
        now = sum(state)
        if abs(now / survived - ratio) < 1e-15 and summed > 4 * limit:
            return summed + now / (1 - now / survived)
        ratio, survived = now / survived, now
        if survived < 1e-14:
            return summed


def found(step, limit, share, pictures):
    state = [1.0] + [0.0] * (limit - 1)
    for _ in range(pictures):
        state = forward(state, step, limit, share)
    return 1 - sum(state)


def charts():
    rows = ["usual,at,every,step,limit,usual_run,before,burst_run,found_180"]
    for usual, at, every, limit in [(0.004, 0.045, 60_000, 164), (0.004, 0.045, 20_000, 138), (0.01, 0.05, 5_000, 0),
                                    (0.02, 0.3, 1_000, 0), (0.1, 0.2, 500, 0)]:
        step = step_of(usual, at)
        limit = next(l for l in range(max(1, limit - 1), 10_000) if run_length(step, l, usual) >= every)
        before = run_length(step, limit - 1, usual) if limit > 1 else 0
        rows.append(f"{usual},{at},{every},{step},{limit},{run_length(step, limit, usual):.4f},{before:.4f},"
                    f"{run_length(step, limit, at):.4f},{found(step, limit, at, 180):.6f}")
    return rows


def verdicts():
    seed, total, limit, step, is_open, rows = 42, 0, 164, 59, False, ["verdict,burst"]
    for n in range(4_400):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        share = 0.045 if 2_000 <= n < 2_400 else 0.004
        verdict = 2 if n % 50 == 49 else int((seed >> 11) / 2**53 < share)
        if verdict < 2:
            total = min(max(0, total + step * verdict - 1), limit)
            is_open = total >= limit or is_open and total > 0
        rows.append(f"{verdict},{int(is_open)}")
    return rows


for name, made in [("charts.csv", charts()), ("verdicts.csv", verdicts())]:
    (HERE / name).write_text("\n".join(made) + "\n")
