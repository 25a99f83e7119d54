noinst_LTLIBRARIES += libiommu.la
libiommu_la_SOURCES = \
	daemon/iommu/iova.c daemon/iommu/iova.h \
	daemon/iommu/none.c daemon/iommu/none.h \
	daemon/iommu/pci.c daemon/iommu/pci.h \
	daemon/iommu/vfio-open.c daemon/iommu/vfio-open.h \
	daemon/iommu/vfio.c daemon/iommu/vfio.h
