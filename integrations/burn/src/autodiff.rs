//! The operation where burn records gradients.

use crate::call::{Bound, Call};
use crate::lend::Lend;
use crate::ops::{NormOps, Others, Outcome};
use crate::passes::{Forwarded, Needs, Wanted, backward, forward};
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::DType;

/// What a tensor's gradient is a part of: input, weight, bias, alpha, residual.
const PARENTS: usize = 5;

/// The backward pass of a call.
#[derive(Debug)]
struct OfCall;

/// What it needs.
#[derive(Debug, Clone)]
struct State<P> {
    call: Call,
    input: P,
    bound: Bound<P>,
    statistics: Option<P>,
}

impl<B: Lend> Backward<B, PARENTS> for OfCall {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, PARENTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let State { call, input, bound, statistics } = ops.state;
        let grad_output = grads.consume::<B>(&ops.node);
        let [of_input, weight, bias, alpha, residual] = ops.parents.each_ref().map(Option::is_some);
        let needs = Needs { input: of_input, weight, bias, alpha, residual };
        let found = backward::<B>(&call, &grad_output, &input, &bound, statistics.as_ref(), needs);
        // All that an argument can be wrong in has been checked by the forward pass, and burn's backward passes have no
        // errors: what is left is a device that was lost, or memory that ran out.
        let found = found.unwrap_or_else(|error| panic!("normkit's backward pass failed: {error}"));
        let all = [found.input, found.weight, found.bias, found.alpha, found.residual];
        for (parent, gradient) in ops.parents.into_iter().zip(all) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// The backward pass of a sum that was taken on the way. The sum has one of its terms' dtypes, which may have two.
#[derive(Debug)]
struct OfSum;

impl<B: Lend> Backward<B, 2> for OfSum {
    type State = [DType; 2];

    fn backward(self, ops: Ops<[DType; 2], 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        for (parent, dtype) in ops.parents.into_iter().zip(ops.state) {
            let Some(parent) = parent else { continue };
            let own = gradient.clone();
            let own = if own.dtype() == dtype { own } else { B::float_cast(own, dtype.into()) };
            grads.register::<B>(parent.id, own);
        }
    }
}

/// burn's tensor of a recorded operation.
type Recorded<B> = FloatTensor<Autodiff<B>>;

/// A tensor that is there, or else a constant in its place.
fn guarded<B: Lend>(tensor: Option<&Recorded<B>>, other: &FloatTensor<B>) -> NodeGuard {
    match tensor {
        Some(tensor) => tensor.node(),
        None => Recorded::<B>::new(other.clone()).node(),
    }
}

impl<B: Lend, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn normkit(call: Call, batch: bool, input: FloatTensor<Self>, others: Others<Self>) -> Outcome<Self> {
        let others = others.bound();
        let plain = input.primitive().clone();
        let guards = [
            input.node(),
            guarded(others.weight.as_ref(), &plain),
            guarded(others.bias.as_ref(), &plain),
            guarded(others.alpha.as_ref(), &plain),
            guarded(others.residual.as_ref(), &plain),
        ];
        let terms = [Some(&input), others.residual.as_ref()];
        let (of_sum, dtypes) = (
            terms.map(|term| guarded(term, &plain)),
            terms.map(|term| term.map_or(plain.dtype(), |term| term.dtype())),
        );
        let bare = |tensor: Option<Recorded<B>>| tensor.map(Recorded::<B>::into_primitive);
        let bound = Bound {
            weight: bare(others.weight),
            bias: bare(others.bias),
            alpha: bare(others.alpha),
            residual: bare(others.residual),
            running: others.running.map(|both| both.map(Recorded::<B>::into_primitive)),
        };
        let prepared = Backward::<B, PARENTS>::prepare::<C>(OfCall, guards).compute_bound().stateful();
        let wanted = Wanted { statistics: matches!(prepared, OpsKind::Tracked(_)), batch };
        let result = forward::<B>(&call, &plain, &bound, wanted);
        let Forwarded { output, hidden, statistics, batch } = match result {
            Ok(forwarded) => forwarded,
            Err(error) => return Outcome::Failed(error),
        };
        let output = match prepared {
            OpsKind::Tracked(prepared) => {
                prepared.finish(State { call, input: plain, bound, statistics }, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        };
        match (hidden, batch) {
            (_, Some([mean, var])) => {
                Outcome::WithBatch(output, Recorded::<B>::new(mean), Recorded::<B>::new(var))
            }
            (Some(hidden), None) => {
                let prepared = Backward::<B, 2>::prepare::<C>(OfSum, of_sum).compute_bound().stateful();
                let hidden = match prepared {
                    OpsKind::Tracked(prepared) => prepared.finish(dtypes, hidden),
                    OpsKind::UnTracked(prepared) => prepared.finish(hidden),
                };
                Outcome::WithHidden(output, hidden)
            }
            (None, None) => Outcome::Output(output),
        }
    }
}
