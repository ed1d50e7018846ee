"""Ranks found by training: priors on every rank of every factorised layer, and what removes what the data do not support.

    posterior = tenfold.bayes.attach(model, n_examples=60000)
    posterior.step(); loss = posterior.loss(task_loss)         # at every step
    print(posterior.report()); print(posterior.shrink())       # when the learning rate has decayed

attach.py is the way in. priors.py says what is believed of a slice, variances.py updates it, posterior.py trains with it (its factors are
in gaussian_factors.py, what they say of the weight in weight_moments.py), warmup.py lets it grow, trust.py holds it back where it is
stronger than the data. shrink.py decides ranks, by rounding.py for trees and components.py with refit.py for all other networks;
weighting.py measures errors where inputs are, reduction.py is what was decided, stability.py says whether decisions have stopped changing,
and surgery.py makes the factors smaller while training goes on, in the optimisers of watched.py too.

Other methods with the same interface (method.py) have a file each: l1_bonds, group_lasso, hard_concrete, global_budget, dlrt. Those with a
scale on every slice share scaled_method.py and scaled_factors.py. All have in common run.py, what they know of the training, report.py,
what they found, guards.py, what they refuse and warn of, factorized_weights.py, which layers they take, and held_factors.py, the mark of
these.
"""

from tenfold.bayes.attach import attach as attach
from tenfold.bayes.dlrt import DLRT as DLRT
from tenfold.bayes.global_budget import GlobalBudget as GlobalBudget
from tenfold.bayes.group_lasso import GroupLasso as GroupLasso
from tenfold.bayes.guards import RanksWarning as RanksWarning
from tenfold.bayes.hard_concrete import HardConcrete as HardConcrete
from tenfold.bayes.l1_bonds import L1Bonds as L1Bonds
from tenfold.bayes.method import RankMethod as RankMethod
from tenfold.bayes.posterior import Posterior as Posterior
from tenfold.bayes.priors import Gamma as Gamma
from tenfold.bayes.priors import HalfCauchy as HalfCauchy
from tenfold.bayes.priors import LogUniform as LogUniform
from tenfold.bayes.priors import Prior as Prior
from tenfold.bayes.shrink import Rounding as Rounding
from tenfold.bayes.shrink import Selection as Selection
from tenfold.bayes.stability import Stability as Stability
from tenfold.bayes.warmup import Warmup as Warmup
from tenfold.bayes.weighting import IdFrequencies as IdFrequencies
