//! The files that a variant's shader is made of.

use super::variant::{Entry, InnerFlags, Style, Variant};
use super::{fusion, text};
use crate::backend::kind::Kind;

impl Variant {
    /// The files that the kernel is made of, besides those that all kernels share.
    pub(super) fn files(&self) -> Vec<&'static str> {
        let style = self.shape.style;
        let mut statistics = vec![shader!("nearest")];
        statistics.extend(self.root());
        statistics.push(shader!("statistics"));
        let (leaf, sums) = (styled!(style, "leaf"), styled!(style, "sums"));
        let (again, first) = (styled!(style, "sums_again"), styled!(style, "first"));
        let (apply, apply_again) = (styled!(style, "apply"), styled!(style, "apply_again"));
        let [emit, again_written] = self.flags.after.writing(style);
        let mut files = Vec::new();
        match self.entry {
            Entry::NormForward => {
                files.extend([leaf]);
                files.extend(statistics);
                files.extend([sums, again, first]);
                files.extend(self.degree());
                files.extend(self.surroundings());
                files.extend(fusion::of_codes(self.flags.scaling));
                files.extend([
                    shader!("held"),
                    shader!("moments"),
                    apply,
                    apply_again,
                    shader!("norm_forward"),
                ]);
                files.extend(emit);
            }
            Entry::NormBackward => {
                files.extend([leaf]);
                files.extend(statistics);
                // Elements' powers take the constants of those of rows.
                files.extend([shader!("row_sums"), sums, again]);
                files.extend(self.slope());
                files.extend(self.surroundings());
                files.extend([shader!("hat"), shader!("row_gradient"), apply, apply_again]);
                files.push(shader!("norm_backward"));
                files.extend(again_written);
                if self.flags.fused {
                    files.extend([shader!("columns"), shader!("norm_backward_fused")]);
                } else {
                    files.push(shader!("norm_backward_apart"));
                }
            }
            Entry::MergeMoments => {
                files.push(shader!("rows"));
                files.extend(statistics);
                files.push(shader!("merge_moments"));
            }
            Entry::MergeSums => files.extend([shader!("rows"), shader!("row_sums"), shader!("merge_sums")]),
            Entry::FromRunning => files.extend([shader!("rows"), shader!("nearest"), shader!("running")]),
            Entry::UpdateRunning => {
                files.push(shader!("rows"));
                files.extend(statistics);
                files.push(shader!("update_running"));
            }
            Entry::Affine => {
                files.push(shader!("columns"));
                files.extend(self.surroundings());
                if self.flags.branch {
                    files.extend(statistics);
                    files.push(shader!("row_sums"));
                    files.extend(self.slope());
                    files.extend([shader!("hat"), shader!("row_gradient"), shader!("affine_branch")]);
                } else {
                    // Those of a branch are a struct.
                    files.extend(statistics.into_iter().filter(|_| self.flags.inner.is_some()));
                    files.push(shader!("affine_parameters"));
                }
                files.push(shader!("affine"));
            }
            Entry::Finish => files.extend([shader!("columns"), shader!("finish")]),
            Entry::PointwiseForward => {
                files.extend(self.function());
                files.push(shader!("pointwise_forward"));
            }
            Entry::PointwiseBackward => {
                files.extend(self.function());
                files.extend([shader!("columns"), shader!("pointwise_backward")]);
            }
            Entry::Leaves => files.extend([leaf, again, shader!("leaves")]),
            Entry::Total => files.push(shader!("total")),
            Entry::Copy => files.extend([leaf, apply, shader!("copy")]),
            Entry::ZeroColumns => files.extend([leaf, apply, shader!("codes"), shader!("outliers")]),
            Entry::Shares => files.extend([shader!("rows"), shader!("alpha"), shader!("shares")]),
            Entry::GradientOfShares => {
                files.extend([shader!("rows"), shader!("alpha"), shader!("gradient_of_shares")]);
            }
        }
        files
    }

    /// From an element to what is normalized, and from that to the output.
    fn surroundings(&self) -> Vec<&'static str> {
        let mut files = fusion::files(self.flags.before, self.flags.after);
        if self.entry != Entry::NormForward {
            files.extend(self.flags.after.back());
        }
        files.push(if self.flags.dropout { shader!("dropout") } else { shader!("dropout_none") });
        files.extend(self.inner());
        match self.mix() {
            None => files.push(shader!("mix_none")),
            Some(InnerFlags { computed: true, .. }) => files.extend([shader!("mix"), shader!("mix_held")]),
            Some(_) => files.extend([shader!("mix"), shader!("mix_read")]),
        }
        files.extend([shader!("hidden"), shader!("value")]);
        files
    }

    /// The norm of a residual's branch, in this kernel.
    fn inner(&self) -> Vec<&'static str> {
        match self.flags.inner {
            None => vec![shader!("inner_none")],
            Some(_) if self.entry == Entry::Affine => vec![shader!("inner"), shader!("inner_given_columns")],
            Some(InnerFlags { computed, .. }) => {
                let statistics = if computed { shader!("inner_moments") } else { shader!("inner_given") };
                vec![shader!("inner"), shader!("inner_kept"), statistics]
            }
        }
    }

    /// What is known of it, if the residual has the same norm. The norm around both has no parameters, and so no sums for them.
    fn mix(&self) -> Option<InnerFlags> {
        self.flags.inner.filter(|inner| inner.mix && self.entry != Entry::Affine)
    }

    /// What is there once more for the norm of a residual's branch, and again for that of the residual.
    pub(super) fn texts_of_norms(&self) -> Vec<String> {
        let of_inner = text::of_inner(&self.files_of_inner());
        match self.mix() {
            None => vec![of_inner],
            Some(_) => {
                let of_mix = text::of_mix(self.inner().into_iter().chain([&of_inner[..]]));
                vec![of_inner, of_mix]
            }
        }
    }

    /// The files that are there once more for the norm of a residual's branch.
    fn files_of_inner(&self) -> Vec<&'static str> {
        let Some(inner) = self.flags.inner else { return Vec::new() };
        let style = self.shape.style;
        let mut files = vec![shader!("hat"), shader!("value")];
        if inner.computed {
            let sums = [styled!(style, "sums"), styled!(style, "sums_again"), styled!(style, "first")];
            files.extend(sums);
            files.extend([shader!("statistics"), shader!("held"), shader!("moments")]);
        }
        files
    }

    /// The elementwise function.
    fn function(&self) -> Vec<&'static str> {
        if self.flags.inverse_root {
            return vec![shader!("slopes"), shader!("inverse_root")];
        }
        vec![shader!("slopes"), shader!("exponential"), shader!("tanh"), shader!("tanh_slopes")]
    }

    /// From a sum to the norm, and from one scale to another.
    fn root(&self) -> Vec<&'static str> {
        match self.flags.kind {
            Kind::Moments | Kind::MeanSquare | Kind::Norm2 => vec![shader!("root_2")],
            Kind::Norm1 | Kind::Largest => vec![shader!("root_1")],
            Kind::IntegerPower(_) => vec![shader!("power"), shader!("root_integer")],
            Kind::Power => vec![shader!("power"), shader!("root_real")],
        }
    }

    /// What of an element is summed.
    fn degree(&self) -> Vec<&'static str> {
        match self.flags.kind {
            Kind::Moments | Kind::MeanSquare | Kind::Norm2 => vec![shader!("degree_2")],
            Kind::Norm1 | Kind::Largest => vec![shader!("degree_1")],
            Kind::IntegerPower(_) => vec![shader!("power_each"), shader!("degree_integer")],
            Kind::Power => vec![shader!("power_each"), shader!("degree_real")],
        }
    }

    /// The norm's derivative.
    fn slope(&self) -> Vec<&'static str> {
        match self.flags.kind {
            Kind::IntegerPower(_) => vec![shader!("power_each"), shader!("slope_integer")],
            Kind::Power => vec![shader!("power_each"), shader!("slope_real")],
            _ => vec![shader!("slope_1")],
        }
    }
}
