"""What models and guides share: networks, checked arguments and inputs, the data plate."""

from pyro_lvm.nn.arguments import (
    Hidden,
    check_choice,
    check_positive,
    check_size,
    hidden_by_layer,
    named_sizes,
)
from pyro_lvm.nn.batches import as_batch, check_num_data, data_plate
from pyro_lvm.nn.conditions import RowReader, conditions
from pyro_lvm.nn.convolutions import ConvEncoder
from pyro_lvm.nn.dense import BatchNorm, Dense
from pyro_lvm.nn.discriminators import Discriminator
from pyro_lvm.nn.frame_rate import AtAnyRate
from pyro_lvm.nn.incomplete import SetEncoder, ZeroImputing
from pyro_lvm.nn.joining import joined
from pyro_lvm.nn.networks import MLP, ConditionalNormal, diagonal_normal, positive_scale, widen
from pyro_lvm.nn.over_time import OverTime
from pyro_lvm.nn.skips import ResidualMLP, SkipEncoder, SkipMLP
from pyro_lvm.nn.top_down import NormalLayer, TopDown
from pyro_lvm.nn.trace_discriminator import TraceDiscriminator
from pyro_lvm.nn.trace_encoder import TraceEncoder
from pyro_lvm.nn.u_net import UNet

__all__ = [
    "MLP",
    "AtAnyRate",
    "BatchNorm",
    "ConditionalNormal",
    "ConvEncoder",
    "Dense",
    "Discriminator",
    "Hidden",
    "NormalLayer",
    "OverTime",
    "ResidualMLP",
    "RowReader",
    "SetEncoder",
    "SkipEncoder",
    "SkipMLP",
    "TopDown",
    "TraceDiscriminator",
    "TraceEncoder",
    "UNet",
    "ZeroImputing",
    "as_batch",
    "check_choice",
    "check_num_data",
    "check_positive",
    "check_size",
    "conditions",
    "data_plate",
    "diagonal_normal",
    "hidden_by_layer",
    "joined",
    "named_sizes",
    "positive_scale",
    "widen",
]
