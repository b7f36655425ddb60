//! Operations compiled for more than every x86-64 CPU has.

use super::avx2::Avx2;
use super::avx512::Avx512;
use super::isa::Operation;

#[inline]
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

#[inline]
pub(super) fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[target_feature(enable = "avx2,f16c,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn avx2<O: Operation>(operation: O) -> O::Output {
    operation.call::<Avx2>()
}

#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
#[target_feature(enable = "avx2,f16c,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn avx512<O: Operation>(operation: O) -> O::Output {
    operation.call::<Avx512>()
}
