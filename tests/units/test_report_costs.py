"""What the report says that two models cost: sizes and times."""

from report_cases import everything, pair


def test_sizes_count_parameters_and_buffers():
    result, _, _ = everything()
    dense, small = pair()
    assert result.size_before.parameters == sum(p.numel() for p in dense.parameters())
    assert result.size_after.parameters == sum(p.numel() for p in small.parameters())
    assert result.size_before.buffers == 8 + 8 + 1
    assert result.size_before.size_bytes == 4 * (result.size_before.parameters + 16) + 8  # the counter of batches is int64


def test_times_are_measured_at_batch_1_and_a_larger_one():
    result, _, _ = everything()
    assert [one.batch for one in result.races] == [1, 12]
    for one in (*result.races, *result.layers[1].races):
        assert one.dense_min_ms <= one.dense_ms and one.small_min_ms <= one.small_ms and one.speedup_low <= one.speedup_high
        assert one.speedup == one.dense_ms / one.small_ms
    assert result.layers[0].races == ()  # it is the same layer
