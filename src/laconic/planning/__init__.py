"""Predicts step times of methods and layouts on a network, from frames of real rounds and the network model."""

from laconic.planning.break_even import ladder as ladder
from laconic.planning.candidate import Candidate as Candidate
from laconic.planning.candidate import CodingSeconds as CodingSeconds
from laconic.planning.candidate import Sent as Sent
from laconic.planning.choosing import choose as choose
from laconic.planning.plan import Choice as Choice
from laconic.planning.plan import Plan as Plan
from laconic.planning.plan import candidates_of as candidates_of
from laconic.planning.plan import judge as judge
from laconic.planning.plan import layouts_of as layouts_of
from laconic.planning.query import Query as Query
from laconic.planning.recorded import Recorded as Recorded
from laconic.planning.recorded import read_recorded as read_recorded
from laconic.training.automatic import Chosen as Chosen
