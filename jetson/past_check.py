"""The decoder as the service runs it: a first pass, then few tokens at a time, the past where the engine
keeps it. The golden frames alone bring their past from the host and see the prefill profile only.
"""

from __future__ import annotations

from ..runtime.infer.engines.engine import Engine, FloatArray
from ..runtime.infer.engines.past import past_for
from ..runtime.infer.engines.profile_choice import ComponentPlan, most_columns
from ..runtime.infer.golden_frames import GoldenFrame
from ..runtime.infer.sequence import mask_for
from ..runtime.infer.shape import ModelShape

STEPS = (1, 1, 8, 1, 16)
"""New tokens of the passes behind the first, over and over: so that each decode profile has its pass."""
_SEEN = -5e3  # as the decoder graph takes its mask


def past_errors(
    frame: GoldenFrame, engine: Engine, plan: ComponentPlan, shape: ModelShape
) -> tuple[str, ...]:
    """Sentences about the passes of the frame's first row whose hidden state left the frame's tolerance."""
    feeds, row = frame.feeds, slice(0, 1)
    slots, columns = feeds["past_kv"].shape[4], feeds["embeds"].shape[1]
    behind = int((feeds["mask"][0, -1, :slots] > _SEEN).sum())
    count = columns if frame.counted is None else int(frame.counted[0].sum())
    profiles = plan.profiles(None, shape.layers)
    past = past_for(engine, shape, feeds["past_kv"][0, :, :, :, :behind], 1, behind + count)
    found, done, step = [], columns - count, 0
    while done < columns:
        wanted = columns if not step else STEPS[(step - 1) % len(STEPS)]
        k = min(wanted, columns - done, max(most_columns(profiles, 1, past.slots), 1))
        here = slice(done, done + k)
        piece: dict[str, FloatArray] = {name: feeds[name][row, here] for name in ("embeds", "cos", "sin")}
        piece["deepstack"] = feeds["deepstack"][row, :, here]
        piece["mask"] = mask_for(past.lengths, [k], past.slots, k)
        hidden = past.step(engine, piece, [k])
        error = float(abs(hidden - frame.expected["hidden"][row, here]).max())
        if not error <= frame.tolerance["hidden"]:
            found.append(
                f"decoder, {k} tokens over {behind} in the engine's own past: hidden is off by {error:.3g},"
                f" allowed {frame.tolerance['hidden']:.3g}"
            )
        behind, done, step = behind + k, done + k, step + 1
    return tuple(found)
