//! Options as C gives them, checked and read.

use crate::method::{Along, Config, Kind, activation};
use crate::norm::Norm;
use crate::options::{
    BatchNormOptions, Cast, DytOptions, Epilogue, EpsPosition, FusionOptions, GroupNormOptions,
    InstanceNormOptions, LayerNormOptions, NORMKIT_WHOLE, NormalizeOptions, Prologue, QkNormKind,
    QkNormOptions, RmsNormOptions, WeightNormOptions,
};
use crate::pointers::sized;
use crate::status::{Fault, Result};
use crate::tensor::{NORMKIT_MAX_NDIM, sizes};
use normkit::spec::{self, Dropout, Fusion};

/// A size from an option.
fn size(name: &str, value: i64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Fault::argument(name, "a size from 1 up", value))
}

/// An axis beyond which no tensor has any.
fn axis(value: i64) -> Result<isize> {
    let most = i64::from(NORMKIT_MAX_NDIM);
    let fits = (-most..most).contains(&value);
    let value = isize::try_from(value).ok().filter(|_| fits);
    value.ok_or_else(|| Fault::argument("dim", format!("an axis within -{most}..{most}"), "one beyond"))
}

/// A field that later versions may use.
fn unused(name: &str, value: i32) -> Result<()> {
    if value == 0 { Ok(()) } else { Err(Fault::argument(name, "0", value)) }
}

/// # Safety
/// `first` is NULL or points to `ndim` sizes.
unsafe fn normalized_shape(first: *const i64, ndim: i32) -> Result<Vec<usize>> {
    // SAFETY: the caller's promise is the same.
    let shape = unsafe { sizes(("normalized_shape", "normalized_ndim"), first, ndim) }?;
    if shape.is_empty() {
        return Err(Fault::argument("normalized_ndim", format!("1 to {NORMKIT_MAX_NDIM}"), ndim));
    }
    Ok(shape.to_vec())
}

/// # Safety
/// `at` is NULL or points to a struct as long as it says.
unsafe fn fusion(at: *const FusionOptions) -> Result<Fusion> {
    if at.is_null() {
        return Ok(Fusion::default());
    }
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("fusion", at) }?;
    let (residual, gate) = (Prologue::Residual as i32, Prologue::Gate as i32);
    let prologue = match options.prologue {
        number if number == Prologue::None as i32 => spec::Prologue::None,
        number if number == residual => {
            let FusionOptions { input_scale, residual_scale, .. } = *options;
            for (name, scale) in [("input_scale", input_scale), ("residual_scale", residual_scale)] {
                if !scale.is_finite() {
                    return Err(Fault::argument(format_args!("fusion.{name}"), "a finite number", scale));
                }
            }
            spec::Prologue::Residual { input_scale, residual_scale }
        }
        number if number == gate => spec::Prologue::Gate,
        number => return Err(Fault::argument("fusion.prologue", "one of normkit_prologue", number)),
    };
    let epilogue = match options.epilogue {
        number if number == Epilogue::None as i32 => spec::Epilogue::None,
        number if number == Epilogue::Residual as i32 => spec::Epilogue::Residual,
        number if number == Epilogue::Gate as i32 => spec::Epilogue::Gate,
        number => spec::Epilogue::Activation(
            activation(number)
                .ok_or_else(|| Fault::argument("fusion.epilogue", "one of normkit_epilogue", number))?,
        ),
    };
    let dropout = Dropout {
        probability: options.dropout_probability,
        seed: options.dropout_seed,
        offset: options.dropout_offset,
    };
    let drops = dropout.probability != 0.0;
    if drops && options.prologue != residual {
        let expected = "0 without a residual before the norm";
        return Err(Fault::argument("fusion.dropout_probability", expected, dropout.probability));
    }
    Ok(Fusion { prologue, epilogue, dropout: drops.then_some(dropout), ..Fusion::default() })
}

/// # Safety
/// `options` is NULL or points to a struct as long as it says, whose arrays are as long as it says.
pub(crate) unsafe fn layer_norm(options: *const LayerNormOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    Norm::new(Config::LayerNorm {
        // SAFETY: as above.
        normalized_shape: unsafe { normalized_shape(options.normalized_shape, options.normalized_ndim) }?,
        broadcast: options.broadcast_parameters != 0,
        eps: options.eps,
        weight_offset: options.weight_offset,
        // SAFETY: as above.
        fusion: unsafe { fusion(options.fusion) }?,
    })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn rms_norm(options: *const RmsNormOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    let eps_position = match options.eps_position {
        number if number == EpsPosition::Inside as i32 => spec::EpsPosition::Inside,
        number if number == EpsPosition::Outside as i32 => spec::EpsPosition::Outside,
        number => return Err(Fault::argument("eps_position", "one of normkit_eps_position", number)),
    };
    let cast = match options.cast {
        number if number == Cast::Fp32 as i32 => normkit::Cast::Fp32,
        number if number == Cast::Llama as i32 => normkit::Cast::Llama,
        number if number == Cast::Gemma as i32 => normkit::Cast::Gemma,
        number => return Err(Fault::argument("cast", "one of normkit_cast", number)),
    };
    Norm::new(Config::RmsNorm {
        // SAFETY: as above.
        normalized_shape: unsafe { normalized_shape(options.normalized_shape, options.normalized_ndim) }?,
        broadcast: options.broadcast_parameters != 0,
        eps: (!options.eps.is_nan()).then_some(options.eps),
        eps_position,
        partial: options.partial,
        weight_offset: options.weight_offset,
        cast,
        // SAFETY: as above.
        fusion: unsafe { fusion(options.fusion) }?,
    })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn dyt(options: *const DytOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    unused("reserved", options.reserved)?;
    let along = if options.num_channels == 0 {
        // SAFETY: as above.
        Along::Trailing(unsafe { normalized_shape(options.normalized_shape, options.normalized_ndim) }?)
    } else if options.normalized_ndim == 0 {
        Along::Channels(size("num_channels", options.num_channels)?)
    } else {
        return Err(Fault::argument("normalized_ndim", "0 beside num_channels", options.normalized_ndim));
    };
    Norm::new(Config::Dyt { along })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn batch_norm(options: *const BatchNormOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    unused("reserved", options.reserved)?;
    let num_features = size("num_features", options.num_features)?;
    Norm::new(Config::BatchNorm { num_features, eps: options.eps, training: options.training != 0 })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn group_norm(options: *const GroupNormOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    Norm::new(Config::GroupNorm {
        num_groups: size("num_groups", options.num_groups)?,
        num_channels: size("num_channels", options.num_channels)?,
        eps: options.eps,
        // SAFETY: as above.
        fusion: unsafe { fusion(options.fusion) }?,
    })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn instance_norm(options: *const InstanceNormOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    let num_features = size("num_features", options.num_features)?;
    // SAFETY: as above.
    let fusion = unsafe { fusion(options.fusion) }?;
    Norm::new(Config::InstanceNorm { num_features, eps: options.eps, fusion })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn qk_norm(options: *const QkNormOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    unused("reserved", options.reserved)?;
    let kind = match options.kind {
        number if number == QkNormKind::L2 as i32 => Kind::L2,
        number if number == QkNormKind::Rms as i32 => Kind::Rms,
        number if number == QkNormKind::Layer as i32 => Kind::Layer,
        number => return Err(Fault::argument("kind", "one of normkit_qk_norm_kind", number)),
    };
    Norm::new(Config::QkNorm { kind, eps: (!options.eps.is_nan()).then_some(options.eps) })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn weight_norm(options: *const WeightNormOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    if options.dim == NORMKIT_WHOLE {
        return Norm::new(Config::WeightNorm { dim: None });
    }
    let negative = |_| Fault::argument("dim", "an axis from 0 up, or NORMKIT_WHOLE", options.dim);
    let dim = usize::try_from(axis(options.dim)?).map_err(negative)?;
    Norm::new(Config::WeightNorm { dim: Some(dim) })
}

/// # Safety
/// As [`layer_norm`].
pub(crate) unsafe fn normalize(options: *const NormalizeOptions) -> Result<Norm> {
    // SAFETY: the caller's promise is the same.
    let options = unsafe { sized("options", options) }?;
    Norm::new(Config::Normalize { p: options.p, dim: axis(options.dim)?, eps: options.eps })
}
