"""The same for larger models, apart because TensorFlow takes minutes to convert them."""

from __future__ import annotations

import pytest
from test_tensorflow_doors import (
    IMAGES,
    QUANTISED,
    Doors,
    opened,
    test_convolutions_products_and_pools_are_the_same_by_every_door,  # noqa: F401
    test_each_file_is_recognised_by_its_content,  # noqa: F401
    test_every_door_gives_a_graph_that_is_one,  # noqa: F401
    test_images_are_channels_first,  # noqa: F401
    test_no_door_inserts_a_transpose_for_the_layout,  # noqa: F401
    test_shapes_are_those_of_a_run_of_tflite,  # noqa: F401
    test_the_work_is_what_keras_layers_state,  # noqa: F401
)

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", params=[name for name in IMAGES if name not in QUANTISED])
def doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Doors:
    return opened(request.param, tmp_path_factory)
