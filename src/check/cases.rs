//! The adversarial list.

use super::case::Case;
use super::data::Fill;
use super::placement::Placement;
use crate::norm::Cast;
use crate::spec::EpsPosition;
use crate::tensor::DType;

/// How many cases to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Some of each kind: seconds on a software adapter.
    Quick,
    /// All of them.
    Full,
}

/// The published list: shapes, values, options and memory layouts that have broken normalization kernels.
pub fn cases(method: &str, dtype: DType, effort: Effort) -> Vec<Case> {
    let Some(method) = super::METHODS.iter().copied().find(|&known| known == method) else {
        return Vec::new();
    };
    let mut list = List { method, dtype, effort, cases: Vec::new() };
    list.shapes();
    list.values();
    list.parameters();
    list.layouts();
    match method {
        "rms_norm" => list.rms_norm(),
        "dyt" => list.dyt(),
        _ => {}
    }
    list.cases
}

struct List {
    method: &'static str,
    dtype: DType,
    effort: Effort,
    cases: Vec<Case>,
}

use Effort::{Full, Quick};

impl List {
    /// Adds a case, unless it belongs to a larger effort.
    fn add(
        &mut self,
        at: Effort,
        name: impl Into<String>,
        outer: &[usize],
        inner: &[usize],
        edit: impl Fn(&mut Case),
    ) {
        if at == Full && self.effort == Quick {
            return;
        }
        let mut case = Case::new(self.method, self.dtype, outer, inner);
        case.name = name.into();
        case.seed = self.cases.len() as u64 + 1;
        edit(&mut case);
        self.cases.push(case);
    }

    /// Whether numbers of this magnitude are normal numbers of the dtype.
    fn holds(&self, magnitude: f64) -> bool {
        match self.dtype {
            DType::F16 => (6.2e-5..=65504.0).contains(&magnitude),
            _ => (1.2e-38..=3.3e38).contains(&magnitude),
        }
    }

    fn shapes(&mut self) {
        // Either side of each change of path (the tree's 32 and 256 lanes, 4096 to a leaf), primes, and the extremes.
        let quick = [1, 2, 3, 31, 769, 1023, 4096, 65_537];
        let full = [7, 32, 33, 61, 64, 255, 256, 257, 512, 1024, 2053, 4095, 4097, 8192, 9973];
        for cols in quick {
            self.add(Quick, format!("{cols} columns"), &[if cols > 5000 { 2 } else { 5 }], &[cols], |_| {});
        }
        for cols in full {
            self.add(Full, format!("{cols} columns"), &[4], &[cols], |_| {});
        }
        self.add(Quick, "no rows", &[0], &[65], |_| {});
        self.add(Quick, "one row", &[1], &[300], |_| {});
        self.add(Quick, "70000 rows", &[70_000], &[3], |_| {});
        self.add(Full, "70000 rows of one column", &[70_000], &[1], |_| {});
        self.add(Full, "4099 rows", &[4099], &[40], |_| {});
        self.add(Quick, "one axis", &[], &[130], |_| {});
        self.add(Quick, "four axes", &[3, 5], &[4, 9], |_| {});
        self.add(Full, "four axes in a row", &[], &[2, 3, 4, 5], |_| {});
        // 100,000 elements as in a network.
        self.add(Quick, "well-conditioned", &[131], &[768], |case| {
            case.well_conditioned = true;
            case.weight = Some(Fill::Normal { mean: 1.0, deviation: 0.1 });
            case.bias = Some(Fill::Normal { mean: 0.0, deviation: 0.1 });
        });
    }

    fn values(&mut self) {
        let dyt = self.method == "dyt";
        for (cols, effort) in [(769, Quick), (31, Full), (4100, Full)] {
            self.add(effort, format!("mean of 1e4 deviations, {cols} columns"), &[5], &[cols], |case| {
                case.input = Fill::Normal { mean: 1e4, deviation: 1.0 };
                if dyt {
                    case.alpha = 1e-4;
                }
            });
            for magnitude in [1e-38, 1e-30, 1e-3, 65504.0, 1e30, 3.3e38] {
                if self.holds(magnitude) {
                    self.add(
                        effort,
                        format!("magnitude {magnitude:e}, {cols} columns"),
                        &[5],
                        &[cols],
                        |case| {
                            case.input = Fill::Uniform(magnitude);
                        },
                    );
                    self.add(
                        Full,
                        format!("magnitude {magnitude:e}, {cols} columns, eps 0"),
                        &[5],
                        &[cols],
                        |case| {
                            case.input = Fill::Uniform(magnitude);
                            case.eps = 0.0;
                        },
                    );
                }
            }
            for magnitude in [1.0, 1e-30, 1e30, 1e4] {
                if self.holds(magnitude) {
                    self.add(
                        effort,
                        format!("constant rows of {magnitude:e}, {cols} columns"),
                        &[5],
                        &[cols],
                        |case| {
                            case.input = Fill::ConstantRows(magnitude);
                        },
                    );
                }
            }
            self.add(effort, format!("zero rows, {cols} columns"), &[5], &[cols], |case| {
                case.input = Fill::Constant(0.0);
            });
            for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                self.add(effort, format!("{special} in one row, {cols} columns"), &[5], &[cols], |case| {
                    case.input = Fill::Special(special);
                });
                self.add(Full, format!("{special} in one gradient, {cols} columns"), &[5], &[cols], |case| {
                    case.grad_output = Fill::Special(special);
                });
            }
            let decades = if self.dtype == DType::F16 { 3 } else { 30 };
            self.add(
                effort,
                format!("rows of all magnitudes, {cols} columns"),
                &[40],
                &[cols.min(800)],
                |case| {
                    case.input = Fill::Mixed(decades);
                },
            );
        }
        for magnitude in [1e-30, 1e30] {
            if self.holds(magnitude) {
                self.add(Quick, format!("gradients of {magnitude:e}"), &[6], &[515], |case| {
                    case.grad_output = Fill::Normal { mean: 0.0, deviation: magnitude };
                });
            }
        }
        self.add(Full, "zero gradients", &[6], &[515], |case| case.grad_output = Fill::Constant(0.0));
        if self.dtype == DType::F64 {
            for magnitude in [1e-250, 1e250] {
                self.add(Quick, format!("magnitude {magnitude:e}"), &[5], &[300], |case| {
                    case.input = Fill::Uniform(magnitude);
                    case.eps = 0.0;
                    if dyt {
                        case.alpha = 1.0 / magnitude;
                    }
                });
            }
        }
        for eps in [0.0, 1e-12, 1e-5] {
            self.add(Full, format!("eps {eps:e}"), &[5], &[200], |case| case.eps = eps);
        }
    }

    fn parameters(&mut self) {
        let zero = Some(Fill::Constant(0.0));
        self.add(Quick, "zero weight", &[5], &[200], |case| case.weight = zero);
        self.add(Quick, "no weight", &[5], &[200], |case| case.weight = None);
        self.add(Quick, "no bias", &[5], &[200], |case| case.bias = None);
        self.add(Quick, "neither weight nor bias", &[5], &[200], |case| {
            (case.weight, case.bias) = (None, None)
        });
        for weight in DType::ALL {
            let fits = weight != DType::F64 || self.dtype == DType::F64;
            if weight != self.dtype && fits {
                self.add(Quick, format!("{weight} weight"), &[37], &[201], |case| case.weight_dtype = weight);
                self.add(Full, format!("{weight} weight in one buffer"), &[5], &[33], |case| {
                    (case.weight_dtype, case.one_buffer) = (weight, true);
                    case.placement = Placement::Padded;
                });
            }
        }
    }

    fn layouts(&mut self) {
        for placement in Placement::ALL {
            self.add(Quick, format!("{placement:?}"), &[7], &[769], |case| case.placement = placement);
            self.add(Quick, format!("{placement:?} in one buffer"), &[3, 5], &[4, 9], |case| {
                (case.placement, case.one_buffer) = (placement, true);
            });
            self.add(Full, format!("{placement:?}, four axes"), &[3, 5], &[7, 40], |case| {
                case.placement = placement
            });
            self.add(Full, format!("{placement:?} in one buffer, odd row"), &[6], &[515], |case| {
                (case.placement, case.one_buffer) = (placement, true);
            });
            self.add(Full, format!("{placement:?}, many rows"), &[600], &[5], |case| {
                case.placement = placement
            });
        }
    }

    fn rms_norm(&mut self) {
        for (cols, effort) in [(769, Quick), (96, Full)] {
            let mut add = |name: &str, edit: &dyn Fn(&mut Case)| {
                self.add(effort, format!("{name}, {cols} columns"), &[9], &[cols], edit);
            };
            add("eps outside", &|case| case.eps_position = EpsPosition::Outside);
            add("large eps outside", &|case| (case.eps_position, case.eps) = (EpsPosition::Outside, 0.7));
            add("gemma", &|case| {
                case.cast = Cast::Gemma;
                case.weight = Some(Fill::Normal { mean: 0.0, deviation: 0.2 });
            });
            add("llama", &|case| case.cast = Cast::Llama);
            add("llama with float32 weight", &|case| {
                case.cast = Cast::Llama;
                case.weight_dtype = if case.dtype == DType::F64 { DType::F64 } else { DType::F32 };
            });
            add("partial 0.0625", &|case| case.partial = 0.0625);
            add("partial 0.5", &|case| case.partial = 0.5);
            add("partial 0.5, eps outside", &|case| {
                (case.partial, case.eps_position) = (0.5, EpsPosition::Outside);
            });
            add("weight offset", &|case| case.weight_offset = -0.25);
        }
        for magnitude in [1e-30, 1e30] {
            if self.holds(magnitude) {
                self.add(Quick, format!("eps outside, magnitude {magnitude:e}"), &[4], &[515], |case| {
                    case.input = Fill::Uniform(magnitude);
                    case.eps_position = EpsPosition::Outside;
                });
            }
        }
        self.add(Quick, "eps outside, zero rows", &[4], &[515], |case| {
            case.input = Fill::Constant(0.0);
            case.eps_position = EpsPosition::Outside;
        });
        self.add(Quick, "llama, well-conditioned", &[131], &[768], |case| {
            (case.cast, case.well_conditioned) = (Cast::Llama, true);
        });
    }

    fn dyt(&mut self) {
        for (alpha, effort) in [(0.0, Quick), (-0.8, Quick), (1e-3, Full), (20.0, Quick), (1e4, Full)] {
            self.add(effort, format!("alpha {alpha}"), &[9], &[300], |case| case.alpha = alpha);
        }
        self.add(Quick, "saturated", &[9], &[300], |case| {
            case.input = Fill::Normal { mean: 0.0, deviation: 30.0 };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_cases_of_each_dtype_with_names_of_their_own() {
        for method in super::super::METHODS {
            for dtype in DType::ALL {
                let (quick, full) = (cases(method, dtype, Quick), cases(method, dtype, Full));
                assert!(quick.len() > 40 && full.len() > quick.len());
                let mut names: Vec<_> = full.iter().map(|case| &case.name).collect();
                names.sort();
                names.dedup();
                assert_eq!(names.len(), full.len(), "{method} {dtype}");
            }
        }
        assert!(cases("no such method", DType::F32, Full).is_empty());
    }
}
