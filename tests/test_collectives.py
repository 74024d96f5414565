"""mistral_lib/teaching/collectives.py: lines as XLA writes them."""

import pytest

from mistral_lib.teaching.collectives import Collective, collectives, sent_per_block

ALL_REDUCE = (
    "  %all-reduce.7 = (f32[2,12,32]{2,1,0}, bf16[2,12,2]{2,1,0}) all-reduce(%a, %b), "
    "channel_id=6, replica_groups=GROUPS, use_global_device_ids=true, to_apply=%add.3.clone, "
    'metadata={op_name="jit(f)/transformer_layer_0/down/dot_general" stack_frame_id=4}'
)
GROUPS = {
    "{{0,1,2,3},{4,5,6,7}}": 4,
    "[2,4]<=[8]": 4,
    "[4,2]<=[2,4]T(1,0)": 2,
    "mesh['axis_0'=2,'axis_1'=1,'axis_2'=4] {'axis_2'}": 4,
    "mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}": 4,
    "mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}": 8,
}


@pytest.mark.parametrize(("groups", "devices"), GROUPS.items())
def test_groups_are_read_in_every_way_of_writing(groups, devices):
    (found,) = collectives(ALL_REDUCE.replace("GROUPS", groups))
    assert found.kind == "all-reduce"
    assert found.devices == devices
    assert found.shapes == ((2, 12, 32), (2, 12, 2))
    assert found.size == 2 * 12 * 32 * 4 + 2 * 12 * 2 * 2
    assert found.sent == 2 * found.size * (devices - 1) / devices
    assert found.scope == "jit(f)/transformer_layer_0/down/dot_general"


@pytest.mark.parametrize(
    ("line", "size", "sent"),
    [
        ("%g = s32[4]{0} all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}", 16, 12),
        ("%g = f32[2,8]{1,0} reduce-scatter(%x), replica_groups={{0,1,2,3}}", 64, 192),
        ("%g = f32[2,8]{1,0} all-to-all(%x), replica_groups={{0,1}}", 64, 32),
        ("%p = pred[] collective-permute(%x), source_target_pairs={{0,1},{1,0}}", 1, 1),
    ],
)
def test_every_kind_has_its_cost(line, size, sent):
    (found,) = collectives(line)
    assert found.size == size
    assert found.sent == sent
    assert found.scope == ""


@pytest.mark.parametrize(
    "line",
    [
        "%fusion = f32[2]{0} fusion(%all-reduce.1), kind=kLoop",
        "%all-reduce.1.clone (x: f32[]) -> f32[] {",
        "%t = f32[2]{0} get-tuple-element((f32[2]{0}, f32[2]{0}) %all-reduce.8), index=0",
    ],
)
def test_other_lines_are_no_collectives(line):
    assert list(collectives(line)) == []


def test_a_block_sends_two_all_reduces_of_the_residual_stream():
    line = "%r = f32[3,5,16]{2,1,0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add"
    assert sum(c.sent for c in collectives(f"{line}\n{line}")) == sent_per_block(3, 5, 16, 4)
    assert sent_per_block(3, 5, 16, 1) == 0


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("all-reduce", 6), ("all-gather", 3), ("reduce-scatter", 3), ("collective-permute", 1)],
)
def test_a_ring_of_four_takes_so_many_steps(kind, steps):
    assert Collective(kind, ((8,),), 4, 32, "").steps == steps
    alone = Collective(kind, ((8,),), 1, 32, "")
    assert kind == "collective-permute" or alone.steps == alone.sent == 0


def test_time_is_that_of_the_bytes_and_of_the_steps():
    message = Collective("all-gather", ((8,),), 4, 32, "")
    assert message.seconds(bandwidth=12, latency=0) == 2
    assert message.seconds(bandwidth=12, latency=5) == 17
